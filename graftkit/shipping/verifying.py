"""Compares a file with the trained model, and its metric on the validation rows."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor

from graftkit import checking, tracing, training
from graftkit.checking import Batch
from graftkit.contracts import Data, Inputs, Metric, Rows, Run, Runtime
from graftkit.core.errors import ExportError, MismatchError
from graftkit.core.signature import Port, Signature
from graftkit.folding import OnnxFile, open_onnx
from graftkit.model import GraftedModel, arranged
from graftkit.rounding import whole_numbers
from graftkit.runtimes import RUNTIMES
from graftkit.shipping.building import fresh_graph
from graftkit.shipping.fixed_rows import any_rows
from graftkit.shipping.judging import Expected, expected_of, score_for
from graftkit.shipping.probes import Probe, few_probes, on_device, probes
from graftkit.shipping.promises import promised

_EDGE = 1e-3  # of confidence: what rounding may move it by, and more
_TIMES, _LEAST = 4, 1e-2  # of onnxruntime's own difference, and of the outputs' scale


class Differs(MismatchError):
    """A runtime gives other outputs, by `found` of their scale."""

    def __init__(self, message: str, found: float = math.nan):
        super().__init__(message)
        self.found = found


class SizeMismatch(MismatchError):
    """The file is right at the sizes of the example, and wrong where `size` is another."""

    def __init__(self, message: str, size: str = "a size"):
        super().__init__(message)
        self.size = size


def verify(
    file: str | Path | onnx.ModelProto,
    model: GraftedModel,
    rows: Data | None = None,
    *,
    runtimes: Sequence[str] = ("onnxruntime",),
    tolerance: float = checking.TOLERANCE,
    metric: str | Metric | None = None,
    metric_tolerance: float | None = None,
) -> dict[str, float]:
    """The largest difference to the trained model for each runtime, relative to the outputs' scale.

    Compared are all outputs: on all validation rows, where there are data; on batches of 1, 2 and 7 real rows, and as
    many random ones; and at another size for each further dimension that is free in the file. Of a file with its
    weights beside it, the example the model was traced with and one row of it. Each row of a file with a gate has to
    be what the trained model gives with its dendrites, or without them where it is sure then.

    A file of `export` with a precision or a gate is judged by its metric on the validation rows; without rows, one with
    a precision by its difference, as any other.

    Args:
        tolerance: the largest difference.
        metric: that `export` had; as the labels suggest where it is None.
        metric_tolerance: how much of it such a file may lose, as `export` has it. Where it is None, the file says so
            itself, and is believed up to what `export` allows by itself (0.005).

    Raises:
        MismatchError: more than `tolerance`; the message names the site where the outputs part. Or more of the metric
            is lost, or may be by what the file says, than is allowed. Or the live module does not give what its graph
            gives.
        ExportError: the file is not ONNX, or a runtime does not load it.
        DataError: a file with a gate, without rows.
    """
    with questions(file, model, rows, tolerance) as (opened, asked):
        expected = _expected(opened, model, rows, metric, metric_tolerance)
        free = expected is not None and expected.promise.threshold is None
        most = rounding_of(opened, model, asked) if free else tolerance
        comparisons = [comparison(opened, model, RUNTIMES.find(name), most) for name in runtimes]
        found = {each.runtime.name: each.worst(asked) for each in comparisons}
        if expected is not None:
            for each in comparisons:
                run = any_rows(each.runtime.open(opened.content), opened.rows)
                expected.judge(metric_of(run, opened.signature(), expected.rows.validation, expected.metric))
        return found


def _expected(
    opened: OnnxFile, model: GraftedModel, rows: Data | None, metric: str | Metric | None, tolerance: float | None
) -> Expected | None:
    """What a file is judged by besides its difference; smaller numbers without rows by nothing."""
    promise = promised(opened)
    if rows is None and promise is not None and promise.threshold is None:
        return None
    return expected_of(opened, model, rows, None if rows is None else score_for(metric, rows), tolerance)


@contextmanager
def questions(
    file: str | Path | onnx.ModelProto, model: GraftedModel, rows: Data | None, tolerance: float
) -> Iterator[tuple[OnnxFile, list[Probe]]]:
    """The file and what it is asked, while the model is in evaluation; raises as `verify` does."""
    opened = open_onnx(file)
    ports = _ports(opened, model)
    training_mode = model.training
    model.eval()
    try:
        asked = few_probes(model, ports) if opened.folder else probes(model, ports, rows)
        with whole_numbers():
            _check_live(model, asked[min(2, len(asked) - 1)].inputs, tolerance)
            yield opened, asked
    finally:
        model.train(training_mode)


def runtime_metric(
    file: str | Path | onnx.ModelProto, rows: Data, metric: Metric, *, runtime: str = "onnxruntime"
) -> float:
    """The validation metric, computed through a runtime alone, in batches of as many rows as the file takes."""
    opened = open_onnx(file)
    run = any_rows(RUNTIMES.find(runtime).open(opened.content), opened.rows)
    return metric_of(run, opened.signature(), rows.validation, metric)


def metric_of(run: Run, signature: Signature, rows: Rows, metric: Metric) -> float:
    """The metric of what a runtime has opened, on some rows."""
    at = signature.output_names.index(signature.output)

    def forward(inputs: Inputs) -> Tensor:
        return torch.from_numpy(run(checking.feed(signature.input_names, arranged(inputs, signature)))[at])

    outputs, targets = training.predict(forward, rows)
    return metric(outputs, targets)


def _ports(opened: OnnxFile, model: GraftedModel) -> tuple[Port, ...]:
    """The inputs as the file has them, where it says so."""
    ours, told = model.traced.signature.inputs, opened.signature().inputs
    fit = len(told) == len(ours) and all(len(a.shape) == len(b.shape) for a, b in zip(told, ours, strict=True))
    return told if fit else ours


@dataclass(frozen=True, eq=False)
class Comparison:
    """One file, one model, one runtime."""

    opened: OnnxFile
    model: GraftedModel
    runtime: Runtime
    tolerance: float

    def worst(self, asked: Sequence[Probe], session: Run | None = None) -> float:
        """The largest difference, in a session that is there already or one of its own. Raises MismatchError."""
        ours, theirs = len(self.opened.outline.graph.output), len(self.model.traced.signature.outputs)
        if ours != theirs:
            raise MismatchError(f"the file gives {ours} outputs, but the model {theirs}")
        run = session or self.runtime.open(self.opened.content)
        usual = self._of(run, [probe.inputs for probe in asked if probe.size is None])
        sizes = dict.fromkeys(probe.size for probe in asked if probe.size is not None)
        others = (self._at(run, size, [probe.inputs for probe in asked if probe.size == size]) for size in sizes)
        return max(usual, *others, 0.0)

    def _of(self, run: Run, batches: Sequence[Batch]) -> float:
        differences = self._compared(run, batches)
        found = differences.worst()
        if found <= self.tolerance:
            return found
        if differences.misshapen:
            raise Differs(f"{self.runtime.name} {differences.wrong}", found)
        wrong = (batch for batch in batches if not self._compared(run, [batch]).worst() <= self.tolerance)
        site = self._first_site(next(wrong, batches[-1]))
        where = f"; the outputs first part at site {site!r}" if site else ""
        what = differences.wrong or (
            f"gives outputs that differ by {found:.2g} of their scale from the trained model"
            f" (tolerance {self.tolerance:.2g})"
        )
        raise Differs(f"{self.runtime.name} {what}{where}", found)

    def _at(self, run: Run, size: str, batches: Sequence[Batch]) -> float:
        """The same at another size, at which a runtime may well fail altogether."""
        try:
            differences = self._compared(run, batches)
        except MismatchError as error:
            raise SizeMismatch(str(error), size) from error
        found = differences.worst()
        if found <= self.tolerance:
            return found
        what = differences.wrong or f"gives outputs that differ by {found:.2g} of their scale"
        raise SizeMismatch(f"{self.runtime.name} {what} where {size} is another than the example's", size)

    def _compared(self, run: Run, batches: Sequence[Batch]) -> checking.Differences:
        def forward(batch: Batch) -> tuple[Tensor, ...]:
            return self.model.outputs(*on_device(self.model, batch))

        return checking.differences(run, forward, self.model.traced.signature.input_names, batches)

    def _first_site(self, batch: Batch) -> str | None:
        names = self.model.traced.signature.input_names
        inputs = dict(zip(names, on_device(self.model, batch), strict=True))
        # where the folder cannot be written to, or the runtime takes no file with more outputs, the site stays unknown
        with suppress(OSError, ExportError, MismatchError):
            return checking.first_difference(
                self.opened.complete(),
                fresh_graph(self.model),
                inputs,
                self.runtime.open,
                tolerance=self.tolerance,
                folder=self.opened.folder,
            )
        return None


@dataclass(frozen=True, eq=False)
class GateComparison(Comparison):
    """The same of a file with a gate, row by row against the model with its dendrites or without them.

    Attributes:
        threshold: of the gate.
    """

    threshold: float

    def _compared(self, run: Run, batches: Sequence[Batch]) -> checking.Differences:
        differences = checking.Differences()
        for batch in batches:
            (given,) = run(checking.feed(self.model.traced.signature.input_names, batch))
            differences.add([given], [self._expected(batch, given)])
        return differences

    def _expected(self, batch: Batch, given: np.ndarray) -> np.ndarray:
        """What the gate has to hand on; of a row that is about at the threshold, what is closer to what was given."""
        inputs = on_device(self.model, batch)
        with torch.no_grad():
            full = checking.array(self.model(*inputs))
            with silenced(self.model):
                answer = self.model(*inputs)
        base, confidence = checking.array(answer), checking.array(answer.softmax(1).max(1, keepdim=True).values)
        if given.shape != base.shape:
            return base
        apart = [np.abs(given - each).max(1, keepdims=True) for each in (base, full)]
        near = np.abs(confidence - self.threshold) < _EDGE
        sure: np.ndarray = np.where(near, apart[0] <= apart[1], confidence >= self.threshold)
        return np.where(sure, base, full)

    def _first_site(self, batch: Batch) -> str | None:
        return None  # a site is there twice


def comparison(opened: OnnxFile, model: GraftedModel, runtime: Runtime, tolerance: float) -> Comparison:
    """How a file is compared: one with a gate by what that has to hand on. Raises ExportError."""
    promise = promised(opened)
    if promise is None or promise.threshold is None:
        return Comparison(opened, model, runtime, tolerance)
    return GateComparison(opened, model, runtime, tolerance, promise.threshold)


def rounding_of(opened: OnnxFile, model: GraftedModel, asked: Sequence[Probe]) -> float:
    """How much a file in smaller numbers may differ from the trained model in any runtime: so it does in onnxruntime.

    Its metric says whether that is too much. Others round elsewhere, so they may be some times as far; a runtime that
    computes something else is farther. Where onnxruntime does not load the file, any number; where it gives what is no
    number, as little as at least.
    """
    usual = [probe for probe in asked if probe.size is None]
    try:
        own = Comparison(opened, model, RUNTIMES.find("onnxruntime"), sys.float_info.max).worst(usual)
    except ExportError:
        return sys.float_info.max
    except MismatchError:
        return _LEAST
    return max(_TIMES * own, _LEAST)


def _check_live(model: GraftedModel, batch: Batch, tolerance: float) -> None:
    """Raise MismatchError where the live module gives something else than its graph with no dendrite speaking."""
    traced = model.traced
    if traced.source is None:
        return
    inputs = on_device(model, batch)
    with silenced(model), torch.no_grad():
        found = checking.Differences()
        live = [checking.array(value) for value in tracing.call_source(traced, inputs)]
        found.add([checking.array(value) for value in model.outputs(*inputs)], live)
    if not found.worst() <= tolerance:
        raise MismatchError(
            f"{traced.name} itself gives outputs that differ by {found.worst():.2g} of their scale from its graph with"
            f" the same weights (tolerance {tolerance:g}): it keeps something that it computed before training; have"
            " it drop that in train()"
        )


@contextmanager
def silenced(model: GraftedModel) -> Iterator[None]:
    """The model with all strengths at zero; afterwards they are what they were."""
    kept: dict[str, list[Tensor]] = {}
    try:
        for site in model.plan.sites():
            kept[site] = model.silence(site)
        yield
    finally:
        for site, strengths in kept.items():
            model.unsilence(site, strengths)
