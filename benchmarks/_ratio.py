"""Compares two pieces of code on a noisy machine: run in turn, divided pair by pair, median of the ratios."""

from __future__ import annotations

import gc
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path


@dataclass(frozen=True)
class Ratio:
    """How much longer one takes than the other.

    Attributes:
        median, low, high: of the ratios of all pairs.
        ours, theirs: median seconds of a single run.
        pairs: how many there were.
    """

    median: float
    low: float
    high: float
    ours: float
    theirs: float
    pairs: int

    def cells(self, unit: float = 1.0, digits: int = 2) -> str:
        """Four cells of a table: ours, theirs, the ratio, its range; times in seconds over `unit`."""
        return (
            f"{self.ours / unit:.{digits}f} | {self.theirs / unit:.{digits}f} | **{self.median:.3f}**"
            f" | {self.low:.2f} – {self.high:.2f}"
        )


def compare(
    ours: Callable[[], object],
    theirs: Callable[[], object],
    *,
    pairs: int,
    runs: int = 1,
    clock: Callable[[], float] = time.process_time,
) -> Ratio:
    """Time both in turn; which one goes first changes from pair to pair.

    Args:
        ours, theirs: what is timed, already warm.
        pairs: how many times each.
        runs: calls within one timing, for calls too short to be timed alone.
        clock: the process's own processor time, which others on the machine disturb least; for other processes'
            time, `time.perf_counter`.
    """

    def seconds(call: Callable[[], object]) -> float:
        started = clock()
        for _ in range(runs):
            call()
        return clock() - started

    first, second = [], []
    for pair in range(pairs):
        gc.collect(0)
        if pair % 2:
            second.append(seconds(theirs))
            first.append(seconds(ours))
        else:
            first.append(seconds(ours))
            second.append(seconds(theirs))
    ratios = [a / b for a, b in zip(first, second, strict=True)]
    return Ratio(
        median=statistics.median(ratios),
        low=min(ratios),
        high=max(ratios),
        ours=statistics.median(first) / runs,
        theirs=statistics.median(second) / runs,
        pairs=pairs,
    )


def calls_within(call: Callable[[], object], seconds: float) -> int:
    """How many calls fill that time; at least one."""
    call()
    spent = []
    for _ in range(5):
        started = time.perf_counter()
        call()
        spent.append(time.perf_counter() - started)
    return max(1, round(seconds / min(spent)))


def print_table(header: Sequence[str], rows: Sequence[str], *, packages: Sequence[str]) -> None:
    """A markdown table under the command that makes it and what it was measured with."""
    script = Path(sys.argv[0]).name
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    command = " ".join([".venv/bin/python", f"benchmarks/{script}", *sys.argv[1:]])
    lines = [
        f"`{command}`",
        f"({date.today():%Y-%m-%d}; Python {platform.python_version()}, {versions})",
        "",
        f"| {' | '.join(header)} |",
        f"|{' --- |' * len(header)}",
        *(f"| {row} |" for row in rows),
    ]
    sys.stdout.write("\n".join(lines) + "\n")
