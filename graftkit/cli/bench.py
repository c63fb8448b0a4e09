"""`graftkit bench`: files side by side."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from graftkit.cli import options
from graftkit.cli.paths import NewFile

if TYPE_CHECKING:
    from rich.console import RenderableType

    from graftkit.benching import File
    from graftkit.contracts import Observer


def _sizes(context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> dict[str, int]:
    found = {}
    for text in given:
        name, _, number = text.partition("=")
        if not number.isdecimal() or int(number) < 1:
            raise click.BadParameter(f"{text!r} is not NAME=NUMBER", param=option)
        found[name.strip()] = int(number)
    return found


@click.command()
@click.argument("targets", metavar="FILE|RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--runtime", "runtimes", multiple=True, default=("onnxruntime",), show_default=True,
              help="One that `graftkit verify` knows, or all that are installed, where a note names the others."
              " Repeatable.")  # fmt: skip
@click.option("--threads", multiple=True, type=click.IntRange(0), default=(1,), show_default=True,
              help="Threads of each runtime; 0 leaves it to that. Repeatable.")  # fmt: skip
@click.option("--rows", type=click.IntRange(1), default=1, show_default=True, help="Rows of one run.")
@click.option("--size", "sizes", multiple=True, metavar="NAME=NUMBER", callback=_sizes,
              help="How much another free size of the inputs is. Repeatable.")  # fmt: skip
@click.option("--rounds", type=click.IntRange(20), default=60, show_default=True,
              help="Turns that each file takes; more tell smaller differences.")  # fmt: skip
@click.option("--memory/--no-memory", default=True, show_default=True, help="Measure peak memory, too.")
@click.option("--energy", is_flag=True, help="Read energy where the machine can tell (extra energy).")
@click.option("--plot", type=NewFile(".svg"), help="Draw an SVG file, in place of one that is there.")
@options.trust
@options.allow
@options.as_json
def bench(
    targets: tuple[Path, ...],
    runtimes: tuple[str, ...],
    threads: tuple[int, ...],
    rows: int,
    sizes: dict[str, int],
    rounds: int,
    memory: bool,
    energy: bool,
    plot: Path | None,
    trust: bool,
    allow: tuple[str, ...],
    as_json: bool,
) -> None:
    """Measure ONNX files side by side, each against the first: latency, memory, energy, size, arithmetic.

    Of a RUN both the model as given and the grafted one are written anew and measured; its control is the network of
    the former. Files take turns, so that what else the machine does falls on all; a difference is only told where it
    is larger than the noise.
    """
    options.started()
    from graftkit import benching
    from graftkit.benching.energy import Meter
    from graftkit.cli.progress import Watcher
    from graftkit.core.atomic import write_text
    from graftkit.core.errors import RunError
    from graftkit.reporting.benches import bench_table

    meter = Meter() if energy else None
    if plot is not None and not plot.resolve().parent.is_dir():
        raise RunError(f"{plot} cannot be written: there is no folder {plot.parent}")
    with tempfile.TemporaryDirectory() as folder, Watcher() as observer, options.stdout_kept():
        names, left_out = _names(runtimes)
        if left_out:
            observer.on_warning("left out: " + "; ".join(f"{name} ({why})" for name, why in left_out.items()))
        files = _files(targets, Path(folder), observer, trust=trust, allow=allow)
        report = benching.bench(
            files,
            runtimes=names,
            threads=[number or None for number in dict.fromkeys(threads)],
            rows=rows,
            sizes=sizes,
            rounds=rounds,
            memory=memory,
            meter=meter,
            on_stage=observer.on_stage,
        )
    if plot is not None:
        from graftkit.reporting.bench_picture import bench_svg  # matplotlib takes a second to import

        write_text(plot, bench_svg(report))
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=2))
    else:
        _show(bench_table(report))


def _files(
    targets: tuple[Path, ...], folder: Path, observer: Observer, *, trust: bool, allow: tuple[str, ...]
) -> list[File]:
    """What the targets name; a file that is named twice has a number behind its second name."""
    from dataclasses import replace

    from graftkit import benching

    found: list[File] = []
    for target in targets:
        if target.is_dir():
            observer.on_stage(f"writing the models of {target}")
            found += benching.of_run(target, folder, trust=trust, allow=allow)
        else:
            found.append(benching.read_file(target, str(target)))
    names = [file.name for file in found]
    times = [names[: index + 1].count(name) for index, name in enumerate(names)]
    return [replace(f, name=f"{f.name} ({n})") if n > 1 else f for f, n in zip(found, times, strict=True)]


def _names(runtimes: tuple[str, ...]) -> tuple[list[str], dict[str, str]]:
    """Each once, and why others are left out: `all` is those that are installed, beside those that are named.

    Raises RuntimeMissingError for an unknown one.
    """
    from graftkit.core.errors import RuntimeMissingError
    from graftkit.runtimes import RUNTIMES

    for name in runtimes:
        if name != "all":
            RUNTIMES.find(name)
    if "all" not in runtimes:
        return list(dict.fromkeys(runtimes)), {}
    missing = {}
    for name in RUNTIMES:
        try:
            RUNTIMES[name].version()
        except RuntimeMissingError as error:
            missing[name] = str(error)
    left_out = {name: why for name, why in missing.items() if name not in runtimes}
    return [name for name in RUNTIMES if name not in left_out], left_out


def _show(table: RenderableType) -> None:
    from rich.console import Console

    piped = not sys.stdout.isatty()
    Console(highlight=False, soft_wrap=piped, width=200 if piped else None).print(table)
