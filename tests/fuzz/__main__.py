"""`python -m tests.fuzz`: gives the readers many broken files, and tells what became of them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from .case import Case, Verdict
from .formats import FORMATS
from .pool import FAULTS, examined, read_again


@click.command()
@click.option("--cases", default=10_000, show_default=True, help="How many, over all formats.")
@click.option("--seed", default=0, show_default=True, help="Other cases for another seed.")
@click.option("--format", "formats", type=click.Choice(list(FORMATS)), multiple=True, help="One format, or several.")
@click.option("--index", type=int, help="Only this case of the format.")
@click.option("--jobs", default=1, show_default=True, help="Processes at a time.")
@click.option("--replay", type=click.Path(exists=True, path_type=Path), help=f"Read a file of {FAULTS} again.")
def main(cases: int, seed: int, formats: tuple[str, ...], index: int | None, jobs: int, replay: Path | None) -> None:
    """Break and forge model and data files, and see that each is read or refused in one line, and nothing else."""
    console = Console()
    if replay is not None:
        name = formats[0] if formats else replay.resolve().parent.name.split("-")[0]
        verdict = read_again(name, replay)
        console.print(_line(verdict))
        sys.exit(verdict.outcome == "failed")
    names = formats or tuple(FORMATS)
    found = _examine(_cases(names, cases, seed, index), jobs, console)
    console.print(_table(names, found))
    sys.exit(any(verdict.outcome == "failed" for verdict in found))


def _cases(names: Sequence[str], count: int, seed: int, index: int | None) -> list[Case]:
    """Each format's in turn."""
    if index is not None:
        return [Case(name, seed, index) for name in names]
    return [Case(names[number % len(names)], seed, number // len(names)) for number in range(count)]


def _examine(cases: Sequence[Case], jobs: int, console: Console) -> list[Verdict]:
    columns = (TextColumn("fuzz"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    found = []
    with Progress(*columns, console=console) as progress, suppress(KeyboardInterrupt):  # the table of what there is
        task = progress.add_task("fuzz", total=len(cases))
        for verdict in examined(cases, jobs=jobs):
            found.append(verdict)
            if verdict.outcome == "failed" or len(cases) == 1:
                progress.console.print(_line(verdict), highlight=False)
            progress.advance(task)
    return found


def _line(verdict: Verdict) -> str:
    colour = {"loaded": "green", "refused": "cyan", "failed": "red"}[verdict.outcome]
    words = escape(f"{verdict.case.name} ({verdict.how}): {verdict.why[:500]}")
    return f"[{colour}]{verdict.outcome}[/{colour}] {words}"


def _table(names: Sequence[str], found: Sequence[Verdict]) -> Table:
    table = Table("format", "cases", "loaded", "refused", "failures", "slowest (s)")
    for name in (*names, "all"):
        own = [verdict for verdict in found if name in ("all", verdict.case.format)]
        counts = [sum(verdict.outcome == outcome for verdict in own) for outcome in ("loaded", "refused", "failed")]
        slowest = max((verdict.seconds for verdict in own), default=0.0)
        table.add_row(name, str(len(own)), *map(str, counts), f"{slowest:.1f}")
    return table


if __name__ == "__main__":
    main()
