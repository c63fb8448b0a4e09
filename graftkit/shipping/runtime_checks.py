"""Checks a file in one runtime after another; what is wrong in one stops no other."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from graftkit import checking, training
from graftkit.contracts import Data, Metric, Runtime, Session
from graftkit.core.errors import DataError, ExportError, GraftkitError, MismatchError, RuntimeMissingError
from graftkit.core.runtime_checks import RuntimeCheck
from graftkit.folding import OnnxFile
from graftkit.model import GraftedModel
from graftkit.runtimes import RUNTIMES
from graftkit.shipping.probes import Probe
from graftkit.shipping.promises import Promise, allowed, holds, promised
from graftkit.shipping.verifying import Comparison, Differs, comparison, metric_of, questions

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
    on_stage: Callable[[str], None] = lambda text: None,
) -> Iterator[RuntimeCheck]:
    """What each runtime makes of the file, on one thread, asked what `verify` asks.

    A file that says that it computes something else, in smaller numbers or with a gate, is judged by its metric; with a
    gate, each row is also held against what the gate has to hand on.

    Raises:
        RuntimeMissingError: an unknown name.
        ExportError, MismatchError: the file is not ONNX or says nothing of what it may lose, or the live module does
            not give what its graph gives.
        DataError: a file that is judged by its metric, without rows or a metric.
    """
    found = [RUNTIMES.find(name) for name in runtimes]
    with questions(file, model, rows, tolerance) as (opened, asked):
        promise = promised(opened)
        expected = None if promise is None else _Expected.of(promise, model, rows, metric)
        for runtime in found:
            on_stage(f"verifying in {runtime.name}")
            exact = comparison(opened, model, runtime, tolerance)
            yield _Check(opened, model, rows, metric, exact, expected).of(asked)


@dataclass(frozen=True)
class _Expected:
    """What is expected of a file that computes something else.

    Attributes:
        promise: what it says of itself.
        before: the trained model's own metric.
    """

    promise: Promise
    before: float

    @staticmethod
    def of(promise: Promise, model: GraftedModel, rows: Data | None, metric: Metric | None) -> _Expected:
        """Raises DataError where there is nothing to judge it by."""
        if rows is None or metric is None:
            raise DataError(f"the file has {promise.what} in it and is judged by its metric; pass rows and a metric")
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        return _Expected(promise, training.evaluate(model, rows.validation, metric, device))

    @property
    def most(self) -> float:
        """How much of the metric may be lost."""
        return allowed(self.before, self.promise.tolerance)

    @property
    def note(self) -> str:
        """By what it is judged, in a line."""
        why = "its gate leaves dendrites out" if self.promise.threshold is not None else f"it is in {self.promise.what}"
        return f"the difference is expected: {why}; the metric counts, {self.before:.4f} less {self.most:.2g} at most"

    def judge(self, metric: float) -> None:
        """Raise MismatchError where too much is lost."""
        if not holds(self.before, metric, self.promise.tolerance):
            raise MismatchError(
                f"the file ({self.promise.what}) takes the validation metric from {self.before:.4f} to {metric:.4f},"
                f" and it was exported to lose {self.most:.2g} at most"
            )


@dataclass(frozen=True, eq=False)
class _Check:
    opened: OnnxFile
    model: GraftedModel
    rows: Data | None
    metric: Metric | None
    exact: Comparison
    expected: _Expected | None

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
            return RuntimeCheck(name, version, True, **self._measured(session, asked))

    def _measured(self, session: Session, asked: Sequence[Probe]) -> dict[str, Any]:
        difference, wrong = _tried(lambda: self._compared().worst(asked, session))
        metric, failed = _tried(lambda: self._metric(session))
        latency, slow = _tried(lambda: self._latency(session, asked))
        _, lost = _tried(lambda: self._judge(session, asked, metric))
        errors = [error for error in (wrong, failed, slow, lost) if error is not None]
        return {
            "difference": wrong.found if isinstance(wrong, Differs) else difference,
            "metric": metric,
            "latency": latency,
            "trouble": str(errors[0]) if errors else None,
            "note": self.expected and self.expected.note,
        }

    def _compared(self) -> Comparison:
        """With the trained model itself, from which a file that computes something else may differ by any number."""
        if self.expected is None:
            return self.exact
        return Comparison(self.opened, self.model, self.runtime, sys.float_info.max)

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
        return metric_of(session, self.opened.signature(), self.rows.validation, self.metric)

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
