"""`graftkit inspect`: which sites there are, and what they received."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from graftkit.cli import options
from graftkit.cli.example import example_of, shapes
from graftkit.cli.paths import NewFile

_ENDINGS = {"table": ("", ".txt", ".md"), "json": (".json",), "dot": (".dot", ".gv"), "svg": (".svg",)}


@click.command()
@click.argument("what", metavar="MODEL|RUN|ONNX|DENDRITES")
@click.option(
    "--format", "form", type=click.Choice(["table", "json", "dot", "svg"]), default="table", show_default=True
)
@click.option("--out", type=NewFile(), help="Write to a file instead of stdout.")
@click.option("--input", "inputs", multiple=True, metavar="[NAME:]SHAPE[:DTYPE]",
              help="Shape of one row that a model file is traced with, as 3,32,32 or ids:128:int64. Repeatable, for"
              " several inputs.")  # fmt: skip
@click.option("--value", is_flag=True, help="Of a run with --budget: what each dendrite was worth, and what it costs.")
@click.option("--data", help="Trace a model file with these data instead.  [default: digits]")
@options.model
@options.as_json
def inspect(what: str, form: str, out: Path | None, as_json: bool, value: bool, **given: Any) -> None:
    """Show each site with its shape, parameters, multiply-adds and dendrites.

    Takes a model file or an architecture (which is traced), a run's folder, any ONNX file, or the file of dendrites
    that export --dendrites-only wrote.
    """
    from graftkit.core.atomic import write_text
    from graftkit.run_folder import is_run

    options.started()
    form = "json" if as_json else form
    if value and form == "dot":
        raise click.UsageError("--value has no dot form; choose table, json or svg")
    if out is not None and out.exists() and (out.suffix.lower() not in _ENDINGS[form] or is_run(out.parent)):
        raise click.UsageError(f"--out would replace {out}, which is something else")
    with options.stdout_kept():
        found = _values(Path(what)) if value else _dendrites(Path(what), form) or _found(what, **given)
    if form == "table" and out is None:
        from rich.console import Console

        Console(highlight=False).print(_table(found))
        return
    text = _text(found, form)
    if out is None:
        click.echo(text)
    else:
        write_text(out, text + "\n")


def _found(what: str, *, inputs: tuple[str, ...], data: str | None, **given: Any) -> Any:
    from torch.export import ExportedProgram

    from graftkit import api, sources
    from graftkit.core.errors import TraceError

    path = Path(what)
    as_it_is = not inputs and data is None and not given["part"]
    if path.is_dir() and given["part"]:
        raise click.UsageError(f"{what} is a run; --part goes with a model file or an architecture")
    if path.is_dir() or (as_it_is and path.is_file() and sources.looks_like_onnx(path)):
        return api.inspect(path)
    loaded = sources.load(options.source_request(what, given))
    how = {"output": given["output"], "dynamic": given["dynamic"]}
    if isinstance(loaded.model, ExportedProgram):
        return api.inspect(loaded, **how)  # it brings its own example
    example = example_of(inputs) if inputs else api.load_data(data or "digits").example()
    try:
        return api.inspect(loaded, example, **how)
    except TraceError as error:
        raise TraceError(f"{error} (traced with {shapes(example)}; --input or --data gives others)") from error


def _dendrites(path: Path, form: str) -> Any:
    """What a file of dendrites holds; None for any other file."""
    from graftkit import dendrite_files

    if not dendrite_files.is_dendrite_file(path):
        return None
    if form in ("dot", "svg"):
        raise click.UsageError("a file of dendrites has no picture; choose table or json")
    with dendrite_files.opened(path) as file:
        return dendrite_files.record_of(file)


def _values(run: Path) -> Any:
    """What a run's trial valued. Raises RunError."""
    from graftkit.core.errors import RunError
    from graftkit.run_folder import RunFolder, is_run

    if not is_run(run):
        raise RunError(f"{run} is no run's folder; --value shows what a run with --budget valued")
    return RunFolder(run).read_values()


def _table(found: Any) -> Any:
    from graftkit.core.dendrite_files import DendriteFileRecord
    from graftkit.core.values import Spending
    from graftkit.reporting import dendrite_file_table, inspection_table, value_table

    if isinstance(found, DendriteFileRecord):
        return dendrite_file_table(found)
    return value_table(found) if isinstance(found, Spending) else inspection_table(found)


def _text(found: Any, form: str) -> str:
    from graftkit.core.values import Spending
    from graftkit.reporting import network_dot, network_svg

    if form == "json":
        return json.dumps(found.to_json(), indent=2)
    if form == "dot":
        return network_dot(found)
    if form == "svg":
        if isinstance(found, Spending):
            from graftkit.reporting.value_picture import value_svg

            return value_svg(found)
        return network_svg(found)
    from rich.console import Console

    console = Console(width=100, highlight=False)
    with console.capture() as capture:
        console.print(_table(found))
    return capture.get()
