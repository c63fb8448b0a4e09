"""The `latency` cost: the time onnxruntime takes for one row on one thread of this machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from graftkit.contracts import Run
from graftkit.costs.written import Measured, Pair, plain
from graftkit.model import GraftedModel
from graftkit.runtimes import RUNTIMES

_ROUNDS = 40
_SLICE = 2e-3  # seconds of calls at a time: long against the clock's grain, short against what else a machine does


@dataclass(frozen=True)
class Latency(Measured):
    """Microseconds for one row, in onnxruntime on one thread.

    With and without dendrites are run in turns, so that what else the machine does falls on both; numbers are medians.
    """

    name: ClassVar[str] = "latency"
    unit: ClassVar[str] = "us"
    exact: ClassVar[bool] = False
    units: ClassVar[Mapping[str, float]] = {"us": 1, "ms": 1e3, "s": 1e6}

    def given(self, model: GraftedModel) -> float:
        pair = plain(model)
        call = _opened(pair.before, pair)
        calls = _calls(call)
        return statistics.median(_time(call, calls) for _ in range(_ROUNDS)) * 1e6

    def more(self, pair: Pair) -> float:
        before, after = _opened(pair.before, pair), _opened(pair.after, pair)
        calls = _calls(before)
        differences = []
        for _ in range(_ROUNDS):
            first = _time(before, calls)
            differences.append(_time(after, calls) - first)
        return statistics.median(differences) * 1e6


def _opened(model: bytes, pair: Pair) -> Callable[[], object]:
    run: Run = RUNTIMES.find("onnxruntime").open(model, threads=1)
    return lambda: run(pair.inputs)


def _calls(call: Callable[[], object]) -> int:
    """How many calls fill a slice, once the first have warmed it up."""
    _time(call, 3)
    return max(1, round(_SLICE / max(_time(call, 3), 1e-7)))


def _time(call: Callable[[], object], calls: int) -> float:
    started = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - started) / calls
