"""`graftkit verify`: an ONNX file against a run's trained model, in the runtimes that it may meet."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from graftkit.cli import options
from graftkit.cli.numbers import Number

if TYPE_CHECKING:
    from graftkit.core.runtime_checks import RuntimeCheck


@click.command()
@click.argument("target", metavar="RUN|MODEL", type=click.Path(path_type=Path))
@click.option("--against", metavar="RUN", type=click.Path(path_type=Path),
              help="The run whose trained model MODEL, an ONNX file, has to compute.")  # fmt: skip
@click.option("--runtime", "runtimes", multiple=True, default=("onnxruntime",), show_default=True,
              help="onnxruntime, reference (onnx's own evaluator), openvino, tract, mnn, ncnn, node,"
              " browser (onnxruntime-web in both), or all that are installed."
              " Repeatable.")  # fmt: skip
@click.option("--tolerance", type=Number(0),
              help="How much of the validation metric a file of `export --precision` or `--gate` may cost, as there."
              "  [default: what the file says, up to 0.005]")  # fmt: skip
@options.trust
@options.allow
@options.as_json
def verify(
    target: Path,
    against: Path | None,
    runtimes: tuple[str, ...],
    tolerance: float | None,
    trust: bool,
    allow: tuple[str, ...],
    as_json: bool,
) -> None:
    """Check that RUN/model.onnx, or MODEL, computes what the trained model computes, and its metric.

    In each runtime: the largest difference to the trained model, the metric on the validation rows, and the median
    time of one row on one thread.
    """
    options.started()
    from graftkit import checking
    from graftkit.cli.progress import Watcher
    from graftkit.reopening import open_run
    from graftkit.shipping import check_runtimes

    model, run = _found(target, against)
    names = _names(runtimes)
    with Watcher() as observer, options.stdout_kept():
        observer.on_stage("reading the run")
        trained, rows, metric, facts = open_run(run, trust=trust, allow=allow)
        how: dict[str, Any] = {"metric_tolerance": tolerance, "on_stage": observer.on_stage}
        checks = list(check_runtimes(model, trained, rows, metric, names, **how))
    if as_json:
        found = {check.runtime: check.to_json() for check in checks}
        told = {"model": str(model), "against": str(run), "metric": facts["metric"], "tolerance": checking.TOLERANCE}
        click.echo(json.dumps({**told, "runtimes": found}, indent=2))
    else:
        _print_table(checks, facts["metric"])
    _judge(checks, named=runtimes)


def _found(target: Path, against: Path | None) -> tuple[Path, Path]:
    """The file, and the run that it is compared with. Raises RunError."""
    from graftkit.core.errors import RunError
    from graftkit.run_folder import RunFolder

    if against is None:
        if target.is_file():
            raise RunError(f"{target} is a file; name the run that it is compared with: --against RUN")
        model, run = RunFolder(target).model, target
    else:
        model, run = target, against
    if not model.is_file():
        raise RunError(f"{model} is not there; `graftkit export {run}` writes a run's file")
    return model, run


def _names(runtimes: Sequence[str]) -> list[str]:
    """Each once, in the order they are named; `all` is the table. Raises RuntimeMissingError for an unknown one."""
    from graftkit.runtimes import RUNTIMES

    for name in runtimes:
        if name != "all":
            RUNTIMES.find(name)
    return list(RUNTIMES) if "all" in runtimes else list(dict.fromkeys(runtimes))


def _print_table(checks: Sequence[RuntimeCheck], metric: str) -> None:
    from rich.console import Console

    from graftkit.reporting import runtimes_table

    piped = not sys.stdout.isatty()
    Console(highlight=False, soft_wrap=piped, width=200 if piped else None).print(runtimes_table(checks, metric))


def _judge(checks: Sequence[RuntimeCheck], *, named: Sequence[str]) -> None:
    """Raise MismatchError where one failed, RuntimeMissingError where one that was named is not there."""
    from graftkit.core.errors import MismatchError, RuntimeMissingError

    failed = [check for check in checks if check.failed]
    missing = [check for check in checks if not check.installed and check.runtime in named]
    if len(failed) == 1:
        raise MismatchError(str(failed[0].trouble))
    if failed:
        raise MismatchError(f"{len(failed)} runtimes do not compute it: {', '.join(check.runtime for check in failed)}")
    if missing:
        raise RuntimeMissingError(str(missing[0].trouble))
