"""Checks a file in one runtime after another; what is wrong in one stops no other."""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from graftkit import checking
from graftkit.contracts import Data, Metric, Runtime, Session
from graftkit.core.errors import ExportError, GraftkitError, RuntimeMissingError
from graftkit.core.runtime_checks import RuntimeCheck
from graftkit.folding import OnnxFile
from graftkit.model import GraftedModel
from graftkit.runtimes import RUNTIMES
from graftkit.shipping.fixed_rows import any_rows
from graftkit.shipping.judging import Expected, expected_of
from graftkit.shipping.probes import Probe
from graftkit.shipping.verifying import Comparison, Differs, comparison, metric_of, questions, rounding_of

Found = TypeVar("Found")

_MOST = 100  # timed runs, or as many as take a second; at least five


def check_runtimes(
    file: str | Path,
    model: GraftedModel,
    rows: Data | None,
    metric: Metric | None,
    runtimes: Sequence[str],
    *,
    tolerance: float = checking.TOLERANCE,
    metric_tolerance: float | None = None,
    on_stage: Callable[[str], None] = lambda text: None,
) -> Iterator[RuntimeCheck]:
    """What each runtime makes of the file, on one thread, asked what `verify` asks.

    A file that says that it computes something else, in smaller numbers or with a gate, is judged by its metric; with a
    gate, each row is also held against what the gate has to hand on.

    Args:
        tolerance: the largest difference, relative to the outputs' scale.
        metric_tolerance: how much of the metric such a file may lose, as `export` has it. Where it is None, the file
            says so itself, and is believed up to what `export` allows by itself (0.005).

    Raises:
        RuntimeMissingError: an unknown name.
        ExportError, MismatchError: the file is not ONNX or says nothing of what it may lose, or more than it is
            believed, or the live module does not give what its graph gives.
        DataError: a file that is judged by its metric, without rows or a metric.
    """
    found = [RUNTIMES.find(name) for name in runtimes]
    with questions(file, model, rows, tolerance) as (opened, asked):
        expected = expected_of(opened, model, rows, metric, metric_tolerance)
        free = expected is not None and expected.promise.threshold is None
        most = rounding_of(opened, model, asked) if free else sys.float_info.max
        for runtime in found:
            on_stage(f"verifying in {runtime.name}")
            exact = comparison(opened, model, runtime, tolerance)
            yield _Check(opened, model, rows, metric, exact, expected, most).of(asked)


@dataclass(frozen=True, eq=False)
class _Check:
    opened: OnnxFile
    model: GraftedModel
    rows: Data | None
    metric: Metric | None
    exact: Comparison
    expected: Expected | None
    most: float  # the largest difference of a file that computes something else

    @property
    def runtime(self) -> Runtime:
        return self.exact.runtime

    def of(self, asked: Sequence[Probe]) -> RuntimeCheck:
        name, version = self.runtime.name, None
        try:
            version = self.runtime.version()
            session = self.runtime.open(self.opened.content, threads=1)
        except RuntimeMissingError as error:
            return RuntimeCheck(name, trouble=str(error))
        except ExportError as error:
            return RuntimeCheck(name, version, loads=False, trouble=str(error))
        with closing(session):
            return RuntimeCheck(name, version, **self._measured(session, asked))

    def _measured(self, session: Session, asked: Sequence[Probe]) -> dict[str, Any]:
        difference, wrong = _tried(lambda: self._compared().worst(asked, session))
        alike = not (isinstance(wrong, Differs) and math.isinf(wrong.found))  # else there is nothing to score
        metric, failed = _tried(lambda: self._metric(session)) if alike else (None, None)
        latency, slow = _tried(lambda: self._latency(session, asked))
        _, lost = _tried(lambda: self._judge(session, asked, metric))
        errors = [error for error in (wrong, failed, slow, lost) if error is not None]
        unloaded = wrong is not None and isinstance(wrong.__cause__, ExportError)  # at the sizes that it is asked
        return {
            "loads": not unloaded,
            "difference": wrong.found if isinstance(wrong, Differs) else difference,
            "metric": metric,
            "latency": latency,
            "trouble": str(errors[0]) if errors else None,
            "note": self.expected and self.expected.note,
        }

    def _compared(self) -> Comparison:
        """With the trained model itself, from which a file that computes something else may differ."""
        if self.expected is None:
            return self.exact
        return Comparison(self.opened, self.model, self.runtime, self.most)

    def _judge(self, session: Session, asked: Sequence[Probe], metric: float | None) -> None:
        if self.expected is None:
            return
        if self.expected.promise.threshold is not None:
            self.exact.worst(asked, session)
        if metric is not None:
            self.expected.judge(metric)

    def _metric(self, session: Session) -> float | None:
        if self.rows is None or self.metric is None:
            return None
        run = any_rows(session, self.opened.rows)
        return metric_of(run, self.opened.signature(), self.rows.validation, self.metric)

    def _latency(self, session: Session, asked: Sequence[Probe]) -> float:
        usual = [probe.inputs for probe in asked if probe.size is None]
        smallest = min(usual, key=lambda batch: sum(tensor.numel() for tensor in batch))
        inputs = checking.feed(self.model.traced.signature.input_names, smallest)
        warm = statistics.median(session.seconds(inputs, 3))
        times = min(max(5, round(1 / max(warm, 1e-6))), _MOST)
        return statistics.median(session.seconds(inputs, times))


def _tried(work: Callable[[], Found]) -> tuple[Found | None, GraftkitError | None]:
    try:
        return work(), None
    except GraftkitError as error:
        return None, error
