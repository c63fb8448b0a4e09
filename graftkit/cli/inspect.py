"""`graftkit inspect`: which sites there are, and what they received."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from graftkit.cli import options


@click.command()
@click.argument("what", metavar="MODEL|RUN|ONNX")
@click.option(
    "--format", "form", type=click.Choice(["table", "json", "dot", "svg"]), default="table", show_default=True
)
@click.option("--out", type=click.Path(path_type=Path), help="Write to a file instead of stdout.")
@click.option("--input", "shape", metavar="SHAPE", help="Shape of one row a model file is traced with, as 3,32,32.")
@click.option("--data", help="Trace a model file with these data instead.  [default: digits]")
@options.weights
@options.trust
@options.as_json
def inspect(what: str, form: str, out: Path | None, as_json: bool, **given: Any) -> None:
    """Show each site with its shape, parameters, multiply-adds and dendrites.

    Takes a model file (which is traced), a run's folder, or any ONNX file.
    """
    from graftkit.core.atomic import write_text

    found = _found(what, **given)
    form = "json" if as_json else form
    if form == "table" and out is None:
        from rich.console import Console

        from graftkit.reporting import inspection_table

        Console(highlight=False).print(inspection_table(found))
        return
    text = _text(found, form)
    if out is None:
        click.echo(text)
    else:
        write_text(out, text + "\n")


def _found(what: str, *, shape: str | None, data: str | None, weights: Path | None, trust: bool) -> Any:
    from torch.export import ExportedProgram

    from graftkit import api
    from graftkit.core.errors import TraceError
    from graftkit.sources import looks_like_onnx

    path = Path(what)
    if path.is_dir() or (path.is_file() and looks_like_onnx(path)):
        return api.inspect(path)
    loaded = api.load(what, weights=weights, trust=trust)
    if isinstance(loaded.model, ExportedProgram):
        return api.inspect(loaded)  # it brings its own example
    example = _example(shape, data)
    try:
        return api.inspect(loaded, example)
    except TraceError as error:
        raise TraceError(
            f"{error} (traced with rows of {list(example.shape[1:])}; --input or --data gives others)"
        ) from error


def _example(shape: str | None, data: str | None) -> Any:
    from graftkit import api

    if shape is None:
        return api.load_data(data or "digits").example()
    import torch

    try:
        sizes = [int(size) for size in shape.replace("x", ",").split(",")]
    except ValueError:
        raise click.BadParameter(f"{shape!r} is not a shape such as 3,32,32", param_hint="--input") from None
    return torch.zeros(2, *sizes)


def _text(found: Any, form: str) -> str:
    from graftkit.reporting import inspection_table, network_dot, network_svg

    if form == "json":
        return json.dumps(found.to_json(), indent=2)
    if form == "dot":
        return network_dot(found)
    if form == "svg":
        return network_svg(found)
    from rich.console import Console

    console = Console(width=100, highlight=False)
    with console.capture() as capture:
        console.print(inspection_table(found))
    return capture.get()
