"""Measures files in turns, in each runtime and with each number of threads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from graftkit.benching.energy import Meter
from graftkit.benching.files import File, feed_of
from graftkit.contracts import Feed
from graftkit.core.benches import BenchReport, Timing
from graftkit.core.errors import ExportError
from graftkit.memory import Peaks
from graftkit.reporting.benches import threads_words
from graftkit.runtimes import RUNTIMES
from graftkit.timing import ratio, timed

_IF = (
    "{name} has an If: its costlier branch counts in multiply-adds, and the time is that of inputs at random, which may"
    " decide otherwise than real rows."
)
_ENERGY = 1.0  # seconds of runs for one reading: counters move a thousand times a second at most


def bench(
    files: Sequence[File],
    *,
    runtimes: Sequence[str] = ("onnxruntime",),
    threads: Sequence[int | None] = (1,),
    rows: int = 1,
    sizes: Mapping[str, int] | None = None,
    rounds: int = 60,
    memory: bool = True,
    meter: Meter | None = None,
    on_stage: Callable[[str], None] = lambda text: None,
) -> BenchReport:
    """Measure files that take the same inputs; all but the first are compared with that one.

    Args:
        files: at least one, each with a name of its own.
        runtimes: names in RUNTIMES, at least one.
        threads: of each runtime; None leaves it to that.
        rows: of one run, where the files leave their number free.
        sizes: other free sizes by name.
        rounds: turns, each some milliseconds of runs of every file.
        memory: measure peak memory, too, each file in a process of its own.
        meter: what reads energy.
        on_stage: told what happens.

    Raises:
        ExportError: a free size is not known, the inputs differ, or no file is loaded by any runtime.
        RuntimeMissingError: a runtime is unknown or not installed.
    """
    feed = feed_of(files, rows=rows, sizes=sizes or {})
    versions = {runtime: RUNTIMES.find(runtime).version() for runtime in runtimes}
    timings: list[Timing] = []
    for runtime, version in versions.items():
        for count in threads:
            on_stage(f"measuring in {runtime}, {threads_words(count)}")
            timings += _group(files, feed, runtime, version, count, rounds, memory, meter)
    if timings and all(timing.trouble for timing in timings):
        raise ExportError(timings[0].trouble)
    return BenchReport(
        subjects=tuple(file.subject(feed) for file in files),
        timings=tuple(timings),
        inputs={name: values.shape for name, values in feed.items()},
        rows=next((len(values) for values in feed.values() if values.ndim), 1),
        energy="not asked for" if meter is None else meter.told,
        notes=tuple(_IF.format(name=file.name) for file in files if file.branches()),
    )


def _group(
    files: Sequence[File],
    feed: Feed,
    runtime: str,
    version: str,
    threads: int | None,
    rounds: int,
    memory: bool,
    meter: Meter | None,
) -> list[Timing]:
    """All files in one runtime, in their order."""
    opens = {file.name: partial(RUNTIMES.find(runtime).open, file.path, threads=threads) for file in files}
    seconds, troubles = timed(opens, feed, rounds=rounds)
    first = seconds.get(files[0].name)
    peaks, found = Peaks(), []
    for file in files:
        own = seconds.get(file.name)
        if own is None:
            found.append(Timing(file.name, runtime, version, threads, trouble=troubles[file.name]))
            continue
        compared = ratio(own, first) if first is not None and own is not first else None
        found.append(
            Timing(
                file.name,
                runtime,
                version,
                threads,
                tuple(own),
                compared,
                peaks.of(file.path, feed, runtime, threads) if memory else None,
                _joules(file, feed, runtime, threads, meter, sorted(own)[len(own) // 2]),
            )
        )
    return found


def _joules(
    file: File, feed: Feed, runtime: str, threads: int | None, meter: Meter | None, seconds: float
) -> float | None:
    if meter is None or not meter.reads:
        return None
    session = RUNTIMES.find(runtime).open(file.path, threads=threads)
    runs = max(1, round(_ENERGY / seconds))
    found = meter.joules(lambda: session.seconds(feed, runs))
    session.close()
    return None if found is None else found / runs
