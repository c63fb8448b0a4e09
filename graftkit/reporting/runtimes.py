"""What runtimes make of a file, as a table for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.console import RenderableType

from graftkit.core.runtime_checks import RuntimeCheck
from graftkit.reporting.tables import Line, Lines

_HEADER = ("runtime", "version", "loads", "difference", "{metric}", "one row")


def runtimes_table(checks: Iterable[RuntimeCheck], metric: str) -> RenderableType:
    """A row a runtime, and below it what is wrong, or how to have it."""
    header = Line(tuple(word.format(metric=metric) for word in _HEADER), style="bold")
    return Lines((header, *(line for check in checks for line in _lines(check))), frozenset({0, 1}))


def _lines(check: RuntimeCheck) -> Iterator[Line]:
    style = "red" if check.failed else "" if check.installed else "dim"
    yield Line((check.runtime, check.version or "not installed", *_cells(check)), style=style)
    if check.note is not None:
        yield Line(text=check.note, indent=2, style="dim")
    if check.trouble is not None:
        yield Line(text=check.trouble, indent=2, style=style)


def _cells(check: RuntimeCheck) -> tuple[str, ...]:
    loads = "" if check.loads is None else "yes" if check.loads else "no"
    difference = "" if check.difference is None else f"{check.difference:.1e}"
    metric = "" if check.metric is None else f"{check.metric:.4f}"
    latency = "" if check.latency is None else f"{check.latency * 1e3:.3f} ms"
    return loads, difference, metric, latency
