"""Checks a file in one runtime after another; what is wrong in one stops no other."""

from __future__ import annotations

import statistics
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
from graftkit.shipping.probes import Probe
from graftkit.shipping.verifying import Comparison, Differs, metric_of, questions

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

    Raises:
        RuntimeMissingError: an unknown name.
        ExportError, MismatchError: the file is not ONNX, or the live module does not give what its graph gives.
    """
    found = [RUNTIMES.find(name) for name in runtimes]
    with questions(file, model, rows, tolerance) as (opened, asked):
        for runtime in found:
            on_stage(f"verifying in {runtime.name}")
            yield _Check(opened, model, rows, metric, Comparison(opened, model, runtime, tolerance)).of(asked)


@dataclass(frozen=True, eq=False)
class _Check:
    opened: OnnxFile
    model: GraftedModel
    rows: Data | None
    metric: Metric | None
    comparison: Comparison

    @property
    def runtime(self) -> Runtime:
        return self.comparison.runtime

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
        difference, wrong = _tried(lambda: self.comparison.worst(asked, session))
        metric, failed = _tried(lambda: self._metric(session))
        latency, slow = _tried(lambda: self._latency(session, asked))
        errors = [error for error in (wrong, failed, slow) if error is not None]
        return {
            "difference": wrong.found if isinstance(wrong, Differs) else difference,
            "metric": metric,
            "latency": latency,
            "trouble": str(errors[0]) if errors else None,
        }

    def _metric(self, session: Session) -> float | None:
        if self.rows is None or self.metric is None:
            return None
        return metric_of(session, self.opened.signature(), self.rows, self.metric)

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
