"""The command line: a group whose commands are imported when they run, and the one place where errors end."""

from __future__ import annotations

import errno
import sys
from importlib import import_module
from typing import Any

import click

from graftkit.cli import processes
from graftkit.cli.stopping import EXIT_CODE, Terminated
from graftkit.core.errors import GraftkitError

COMMANDS = {
    "augment": "Graft dendrites onto a trained model, train, and write a verified ONNX file.",
    "compress": "Make a model smaller: prune it, and graft dendrites where they are worth more than channels.",
    "sweep": "Search the settings of augment: accuracy against size, with dendrites and without.",
    "inspect": "Show a model's sites and which dendrites they received.",
    "export": "Write a run's model as ONNX again, with other options.",
    "transplant": "Put a run's dendrites and weights into your own ONNX file.",
    "verify": "Check a run's ONNX file against its trained model.",
    "evaluate": "Measure a run's networks with few samples and with corrupted inputs.",
    "bench": "Measure ONNX files side by side: latency, memory, energy, size, arithmetic.",
    "check": "Hold an ONNX file against the operator lists of TensorRT, TFLite and others.",
}


class LazyGroup(click.Group):
    """Lists its commands without importing them, so that `--help` is quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = getattr(import_module(f"graftkit.cli.{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; what a user can mend becomes one line on stderr and an exit code."""
        try:
            return super().invoke(ctx)
        except GraftkitError as error:
            click.echo(f"{processes.name()}: {' '.join(str(error).split())}", err=True)
            ctx.exit(error.exit_code)
        except OSError as error:  # a full disk, or what nobody thought of
            if error.errno == errno.EPIPE:
                raise  # click ends quietly where nobody reads on
            where = f" ({error.filename})" if error.filename else ""
            click.echo(f"{processes.name()}: {error.strerror or error}{where}", err=True)
            ctx.exit(1)
        except Terminated as ended:
            click.echo(f"{processes.name()}: ended by SIGTERM; {ended}", err=True)
            ctx.exit(EXIT_CODE)
        except KeyboardInterrupt:
            if processes.number() == 0:
                click.echo("graftkit: stopped by the user before anything was finished", err=True)
            ctx.exit(130)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="graftkit", prog_name="graftkit")
def cli() -> None:
    """Graft dendrites onto a trained PyTorch model, train them, and ship one plain ONNX file."""


def main() -> None:
    """The console script."""
    sys.exit(cli())
