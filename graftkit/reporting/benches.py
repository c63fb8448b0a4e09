"""A bench as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType

from graftkit.core.benches import BenchReport, Subject, Timing
from graftkit.core.ratio import Ratio
from graftkit.reporting.tables import Line, Lines

_FILES = ("file", "parameters", "multiply-adds a row", "nodes", "bytes")
_TIMES = ("", "median", "90% below", "rows/s", "to the first", "99% limits", "memory", "energy")


def bench_table(report: BenchReport) -> RenderableType:
    """What the files cost by count, and then a table for each runtime and number of threads."""
    files = Lines((Line(_FILES, style="bold"), *(_counts(subject) for subject in report.subjects)))
    parts: list[RenderableType] = [files]
    for timings in report.groups().values():
        parts += ["", Lines(tuple(_group(timings, report.rows)))]
    parts += ["", *(Lines((Line(text=note),)) for note in _notes(report))]
    return Group(*parts)


def threads_words(threads: int | None) -> str:
    """How many threads, in words."""
    return "its own number of threads" if threads is None else f"{threads} thread{'s' * (threads != 1)}"


def _counts(subject: Subject) -> Line:
    return Line((subject.name, *(f"{n:,}" for n in (subject.parameters, subject.macs, subject.nodes, subject.size))))


def _group(timings: Sequence[Timing], rows: int) -> Iterator[Line]:
    first = timings[0]
    yield Line((f"{first.runtime} {first.version}, {threads_words(first.threads)}", *_TIMES[1:]), style="bold")
    for timing in timings:
        if timing.trouble:
            yield Line((timing.subject, *("-" for _ in _TIMES[1:])), style="red")
            yield Line(text=timing.trouble, indent=2, style="red")
            continue
        memory = "-" if timing.memory is None else f"{timing.memory / 2**20:.1f} MiB"
        energy = "-" if timing.energy is None else f"{timing.energy * 1e3:.3f} mJ"
        times = (_duration(timing.median), _duration(timing.p90), f"{rows / timing.median:,.0f}")
        yield Line((timing.subject, *times, *_ratio(timing.versus), memory, energy))


def _ratio(versus: Ratio | None) -> tuple[str, str]:
    """How long it takes against the first, or that this cannot be told."""
    if versus is None:
        return "", ""
    limits = f"{versus.low:.3f} to {versus.high:.3f}"
    return (f"{versus.median:.3f}" if versus.certain else "no difference told"), limits


def _duration(seconds: float) -> str:
    return f"{seconds * 1e6:.1f} us" if seconds < 1e-3 else f"{seconds * 1e3:.2f} ms"


def _notes(report: BenchReport) -> Iterator[str]:
    if any(timings[0].trouble for timings in report.groups().values()):
        yield f"{report.subjects[0].name}, which the others are compared with, did not run everywhere."
    inputs = ", ".join(f"{name} {list(shape)}" for name, shape in report.inputs.items())
    yield f"Inputs: {inputs or 'none'}. Times are means over turns of some milliseconds; ratios are medians over turns."
    if any(timing.versus is not None and not timing.versus.certain for timing in report.timings):
        yield "no difference told: the ratio's limits hold 1, so this measurement cannot tell which is faster."
    if report.energy != "not asked for":
        yield f"Energy: {report.energy}."
    yield from report.notes
