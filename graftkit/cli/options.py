"""Options that several commands share, and the request for a model that they make."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, redirect_stdout
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from graftkit.cli.numbers import Number

if TYPE_CHECKING:
    from graftkit.contracts import SourceRequest

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def _pair(context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """`name=value` as (name, value)."""
    for text in given:
        if not text.partition("=")[1]:
            raise click.BadParameter(f"{text!r} is not name=value", param=option)
    return tuple((name.strip(), value) for name, _, value in (text.partition("=") for text in given))


trust: Decorator = click.option(
    "--trust", is_flag=True, help="Run code the file brings along. Only if you trust whoever made it."
)
weights: Decorator = click.option(
    "--weights",
    type=click.Path(path_type=Path),
    help="Weights for a MODEL that is an architecture: a state dict, safetensors or Lightning checkpoint.",
)
arch: Decorator = click.option(
    "--arch",
    metavar="ARCH",
    help="Architecture for a MODEL that is weights alone: package.module:factory, timm:NAME or hf:FOLDER.",
)
arch_args: Decorator = click.option(
    "--arch-args",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_pair,
    help="Argument for the architecture, as num_classes=10. Repeatable.",
)
allow: Decorator = click.option(
    "--allow",
    multiple=True,
    metavar="CLASS",
    help="A class that a pickle may name, as package.module.Class; its module is imported. Repeatable.",
)
part: Decorator = click.option(
    "--part", metavar="PATH", help="Take one part of MODEL alone, such as backbone.body; the rows are then its own."
)
output: Decorator = click.option(
    "--output", metavar="NAME", help="Which output feeds the loss.  [default: the only one, or the usual one]"
)
dynamic: Decorator = click.option(
    "--dynamic",
    type=click.Choice(["auto", "batch"]),
    default="auto",
    show_default=True,
    help="Sizes to leave free: all that the model leaves open, or the batch alone.",
)
as_json: Decorator = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
opset: Decorator = click.option(
    "--opset", type=click.IntRange(17, 25), default=20, show_default=True, help="ONNX opset."
)  # the limits are folding.OPSETS, which takes torch to import

layout: Decorator = click.option(
    "--layout",
    type=click.Choice(["portable", "auto", "branches", "wide", "depthwise"]),
    default="portable",
    show_default=True,
    help="How sites with dendrites are written: by rule; as measures fastest here; or all alike.",
)  # the choices are shipping.CHOICES, which takes torch to import


data: Decorator = click.option(
    "--data", default="digits", show_default=True, help="digits, file.npz, folder/ or file.py:function."
)
batch_size: Decorator = click.option("--batch-size", type=click.IntRange(1), default=64, show_default=True)
loss: Decorator = click.option(
    "--loss", help="cross_entropy, mse, l1, bce, or package.module:name.  [default: as the labels say]"
)
metric: Decorator = click.option(
    "--metric", help="accuracy, r2, negative_mse, or package.module:name.  [default: as loss and labels say]"
)
margin: Decorator = click.option(
    "--margin",
    type=Number(0),
    default=1.0,
    show_default=True,
    help="Ship dendrites where they gain more than so many standard errors on validation.",
)
seed: Decorator = click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
seeds: Decorator = click.option(
    "--seeds", type=click.IntRange(1), default=1, show_default=True, help="Repetitions, with mean and spread."
)
device: Decorator = click.option("--device", default="cpu", show_default=True, help="cpu, cuda or another accelerator.")
deterministic: Decorator = click.option(
    "--deterministic", is_flag=True, help="Refuse operations that may give other numbers each time."
)
resume: Decorator = click.option(
    "--resume",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Instead of MODEL: go on with a run that was stopped or killed, to the same end.",
)
force: Decorator = click.option("--force", is_flag=True, help="Replace an earlier run in the folder.")


def check_resume(context: click.Context, given: Mapping[str, Any]) -> None:
    """A model, or a run to go on with, which has its own settings. Raises UsageError."""
    if given["resume"] is None:
        if given["model"] is None:
            raise click.UsageError("Missing argument 'MODEL' (or --resume RUN).", context)
        return
    more = next((name for name in said(context, given) if name not in _WITH_RESUME), None)
    if more is not None:
        what = "MODEL" if more == "model" else f"--{more.replace('_', '-')}"
        raise click.UsageError(f"--resume goes on with the run's own settings; leave out {what}", context)


def said(context: click.Context, given: Mapping[str, Any]) -> list[str]:
    """The options that were on the command line."""
    return [name for name in given if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]


_WITH_RESUME = frozenset({"resume", "trust", "allow", "as_json"})


def started() -> None:
    """Say so before torch is imported, which takes seconds."""
    click.secho("· starting" if sys.stderr.isatty() else "- starting", err=True, dim=sys.stderr.isatty())


def stdout_kept() -> AbstractContextManager[Any]:
    """Keep stdout for the command's own answer: what a model's code prints goes to stderr."""
    return redirect_stdout(sys.stderr)


_READING = (dynamic, output, part, trust, allow, arch_args, arch, weights)


def model(command: Callable[..., Any]) -> Callable[..., Any]:
    """All that says how to read MODEL."""
    return reduce(lambda made, option: option(made), _READING, command)


def source_request(spec: str, given: Mapping[str, Any]) -> SourceRequest:
    """What to read, from the options of `model`."""
    from graftkit.contracts import SourceRequest

    return SourceRequest(
        spec=spec,
        weights=given["weights"],
        trust=given["trust"],
        arch=given["arch"],
        arch_args=given["arch_args"],
        allow=given["allow"],
        part=given["part"],
    )
