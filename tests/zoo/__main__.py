"""`python -m tests.zoo`: examines the cases, keeps what it finds, prints the table, writes the page."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from queue import Queue

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from .case import Case
from .cases import FAMILIES, all_cases
from .isolate import Worker
from .page import page, summary
from .results import Base, Results, Row

_COLOURS = {"pass": "green", "refused": "cyan", "fail": "red"}


@click.command()
@click.option("--only", default="*", metavar="GLOB", help="Cases by name, such as 'resnet*' or 'hf/*'.")
@click.option("--family", type=click.Choice(FAMILIES), multiple=True, help="One family, or several.")
@click.option("--jobs", default=1, show_default=True, help="Processes at a time.")
@click.option("--seconds", default=300, show_default=True, help="Time limit for a case.")
@click.option("--memory", default=12, show_default=True, help="Memory limit for a case, in GiB of address space.")
@click.option("--resume", default="runs/zoo/results.jsonl", show_default=True, help="Where results are kept.")
@click.option("--again", is_flag=True, help="Examine cases that have a result already.")
@click.option("--failed", is_flag=True, help="Examine again those whose result is a failure.")
@click.option(
    "--part", type=click.Choice(["both", "row", "base"]), default="both", help="base: torch.onnx.export alone."
)
@click.option("--write", type=click.Path(path_type=Path), help="Write the page from all results there are.")
def main(
    only: str,
    family: tuple[str, ...],
    jobs: int,
    seconds: int,
    memory: int,
    resume: str,
    again: bool,
    failed: bool,
    part: str,
    write: Path | None,
) -> None:
    """Trace, graft, train, export and compare many architectures; results are kept and taken up again."""
    console = Console()
    results = Results(Path(resume))
    cases = list(all_cases(family or FAMILIES, only))
    work = list(_work(cases, results, again=again, failed=failed, part=part))
    workers = _workers(jobs, seconds=seconds, gibibytes=memory)
    with _progress(console) as progress, ThreadPoolExecutor(jobs) as pool:
        task = progress.add_task("zoo", total=len(work))
        for done in as_completed([pool.submit(_examined, workers, name, kind) for name, kind in work]):
            results.add(done.result())
            progress.console.print(_line(done.result()), highlight=False)
            progress.advance(task)
    while not workers.empty():
        workers.get().close()
    console.print(_table(cases, results))
    if write:
        write.write_text(page(list(all_cases()), results))


def _workers(jobs: int, *, seconds: int, gibibytes: int) -> Queue[Worker]:
    """As many as there are jobs; a job takes one out while it needs it."""
    queue: Queue[Worker] = Queue()
    for _ in range(jobs):
        queue.put(Worker(seconds=seconds, gibibytes=gibibytes))
    return queue


def _examined(workers: Queue[Worker], name: str, kind: str) -> Row | Base:
    worker = workers.get()
    try:
        return worker.examine(name, kind)
    finally:
        workers.put(worker)


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console)


def _work(
    cases: Iterable[Case], results: Results, *, again: bool, failed: bool, part: str
) -> Iterable[tuple[str, str]]:
    for case in cases:
        if part != "row" and results.base(case.name) is None:
            yield case.name, "base"
        row = results.row(case.name)
        if part != "base" and (row is None or again or (failed and row.status == "fail")):
            yield case.name, "row"


def _line(result: Row | Base) -> str:
    if isinstance(result, Base):
        return f"[dim]base    {result.name}: {result.exports} {result.seconds:.0f} s {_plain(result.cause)}[/dim]"
    colour = _COLOURS[result.status]
    return f"[{colour}]{result.status:7}[/{colour}] {result.name} {result.seconds:.0f} s {_plain(result.cause)}"


def _plain(text: str) -> str:
    return text.replace("[", r"\[")[:300]


def _table(cases: list[Case], results: Results) -> Table:
    head, *lines = summary(cases, results)
    table = Table(*head)
    for line in lines:
        table.add_row(*line)
    return table


if __name__ == "__main__":
    main()
