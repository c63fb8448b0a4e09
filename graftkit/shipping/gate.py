"""A trained model whose dendrites run for the rows that need them: thresholds, what each costs and saves, and one file.

How sure the network is of a row without its dendrites decides (Teerapittayanon et al. 2016, BranchyNet, who leave at a
threshold of the entropy; here the largest softmax, after Hendrycks and Gimpel 2017).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor

from graftkit import checking, folding, training
from graftkit.contracts import Data, Feed, Inputs, Metric
from graftkit.core.errors import ExportError, MismatchError
from graftkit.core.gates import GateReport, GateTrial
from graftkit.core.signature import Signature
from graftkit.folding import ONE_FILE, Written, staged
from graftkit.model import GraftedModel, arranged
from graftkit.runtimes import RUNTIMES
from graftkit.shipping.building import build
from graftkit.shipping.layouts import PORTABLE, Target
from graftkit.shipping.promises import TOLERANCE, allowed, holds
from graftkit.shipping.shipment import Shipped, ship, whole_file
from graftkit.shipping.verifying import metric_of, verify
from graftkit.timing import Mixed, ratio, timed

SHARES = (0.05, 0.1, 0.25, 0.5, 0.75)  # of validation rows that need dendrites; besides none and all
_BATCH = 512
_MIX = 20  # rows that are timed one after the other; enough to have all shares above among them
_ROUNDS = 120
_ORDINARY = "ordinary"


@dataclass(frozen=True)
class Gated:
    """A file with a gate that was verified and written.

    Attributes:
        path: the file.
        report: what was measured, and what was chosen.
        parity: by runtime, the largest difference of a row to what the gate has to hand on, relative to the scale.
        notes: what a user has to know about it, one line each.
    """

    path: Path
    report: GateReport
    parity: Mapping[str, float]
    notes: tuple[str, ...] = ()


def ship_gated(
    model: GraftedModel,
    path: str | Path,
    rows: Data,
    metric: Metric,
    *,
    tolerance: float = TOLERANCE,
    opset: int = folding.DEFAULT_OPSET,
    facts: Mapping[str, Any] | None = None,
    layout: str = PORTABLE,
    target: Target | None = None,
    one_file: int = ONE_FILE,
    on_stage: Callable[[str], None] = lambda text: None,
    on_measured: Callable[[GateReport], None] = lambda report: None,
) -> Gated:
    """Write the model as one ONNX file whose dendrites run where a row needs them, if that is measured to save time.

    Thresholds are quantiles of the confidence on validation rows. The fastest is chosen whose validation metric loses
    no more than `tolerance` against the ordinary file.

    Args:
        model: with its trained weights.
        path: where to write.
        rows: of classes; validation rows decide, test rows are looked at.
        metric: higher is better.
        tolerance: how much of the metric may be lost, in its own unit; of one below zero (a loss with a minus) a share.
        opset, facts, layout, one_file: as `ship` takes them; the layout is that of the sites with dendrites.
        target: where it will run, and where time is measured; onnxruntime on one thread where it is None.
        on_stage: told what happens.
        on_measured: told what was measured, before anything is refused for it.

    Raises:
        ExportError: the model or its data are none for a gate, or no gate saves time; MismatchError: the file
            computes something else. Then nothing is written.
        RunError: the folder cannot be written to.
    """
    where = target or Target()
    _check_task(model, rows)
    with TemporaryDirectory() as folder:
        how: dict[str, Any] = {"opset": opset, "facts": facts, "layout": layout, "target": target, "one_file": one_file}
        ordinary = ship(model, Path(folder) / "ordinary.onnx", rows, metric=metric, on_stage=on_stage, **how)
        on_stage("measuring gates")
        gates = _gates(model, ordinary, rows, metric, opset)
        report = gates.report(Path(folder), tolerance, where)
    on_measured(report)
    if not report.pays:
        raise ExportError(_refusal(report))
    made = gates.at(report.chosen.threshold)
    folding.tell(made, tolerance=tolerance, gate=_facts(report))
    with staged(Written(made), path) as draft:
        on_stage("verifying")
        both = tuple(dict.fromkeys(("onnxruntime", where.runtime)))
        parity = verify(draft, model, rows, runtimes=both, metric=metric, metric_tolerance=tolerance)
    return Gated(Path(path), report, parity, ordinary.notes)


def thresholds(confidence: np.ndarray, shares: Sequence[float] = SHARES) -> tuple[float, ...]:
    """Thresholds below which about these shares of rows are, besides that of none and that of all; each once.

    They lie midway between two rows, so that rounding in another runtime moves none of them across.

    Args:
        confidence: of each row.
    """
    ordered = np.sort(confidence.astype(np.float32))
    found = [0.0]
    for share in shares:
        first = int(np.searchsorted(ordered, ordered[min(round(share * len(ordered)), len(ordered) - 1)]))
        if first:
            below, above = ordered[first - 1], ordered[first]
            middle = np.float32((float(below) + float(above)) / 2)
            found.append(float(middle if middle > below else above))
    return (*dict.fromkeys(found), folding.ALL)


def _check_task(model: GraftedModel, rows: Data) -> None:
    """Raise ExportError where there is nothing that a gate could ask how sure it is."""
    signature = model.traced.signature
    port = next(port for port in signature.outputs if port.name == signature.output)
    last = port.shape[-1] if port.shape else 1
    why = ""
    if not model.plan.grafts:
        why = "the model has no dendrites: it ships as it was given"
    elif rows.labels != "classes":
        why = "a gate asks how sure the network is of a class, and the labels are values"
    elif len(signature.outputs) > 1:
        why = f"a gate hands on one output, and the model has {len(signature.outputs)}"
    elif len(port.shape) != 2 or not isinstance(last, int) or last < 2:
        why = f"a gate asks how sure the network is of a class of each row, and it gives {port.text()}"
    elif any(not port.shape or isinstance(port.shape[0], int) for port in (port, *signature.inputs)):
        why = "a gate is for single rows, and the model's inputs have a fixed number of them, or none"
    if why:
        raise ExportError(f"{why}; export without --gate")


def _gates(model: GraftedModel, ordinary: Shipped, rows: Data, metric: Metric, opset: int) -> _Gates:
    grafted = whole_file(ordinary.path, "a gate", "leave the dendrites on for all rows")
    base = build(model, opset=opset, signature=ordinary.signature, dendrites=False).whole()
    return _Gates(base, grafted, ordinary, rows, metric)


@dataclass(frozen=True, eq=False)
class _Gates:
    """Both networks, and what is measured of gates between them."""

    base: onnx.ModelProto
    grafted: onnx.ModelProto
    ordinary: Shipped
    rows: Data
    metric: Metric

    def at(self, threshold: float) -> onnx.ModelProto:
        """A whole model with a gate. Raises ExportError."""
        if self.base.ByteSize() + self.grafted.ByteSize() > ONE_FILE:
            raise ExportError("with a gate the model is too large for one ONNX file; export without --gate")
        return folding.gated(self.base, self.grafted, threshold)

    def report(self, folder: Path, tolerance: float, where: Target) -> GateReport:
        """Metric and time at several thresholds; files go into the folder. Raises ExportError, MismatchError."""
        confidence = self._confidence()
        tried = thresholds(confidence)
        files = {str(threshold): folder / f"gate-{index}.onnx" for index, threshold in enumerate(tried)}
        for threshold in tried:
            files[str(threshold)].write_bytes(self.at(threshold).SerializeToString())
        mix = self._mix(confidence)
        seconds = _seconds({**files, _ORDINARY: self.ordinary.path}, mix, where)
        trials = tuple(
            GateTrial(
                threshold,
                float((confidence < np.float32(threshold)).mean()),
                self._metric(files[str(threshold)], "validation"),
                ratio(seconds[str(threshold)], seconds[_ORDINARY]),
            )
            for threshold in tried
        )
        before = self.ordinary.metric
        assert before is not None, "it was asked for"
        best = _best(trials, before, tolerance)
        test = None
        if self.rows.test is not None:
            test = self._metric(self.ordinary.path, "test"), self._metric(files[str(trials[best].threshold)], "test")
        most = allowed(before, tolerance)
        return GateReport(trials, before, most, best, test, where.runtime, where.threads, len(mix))

    def _metric(self, file: Path, part: str) -> float:
        session = RUNTIMES.find("onnxruntime").open(file, threads=1)
        return metric_of(session, self._signature, getattr(self.rows, part), self.metric)

    @property
    def _signature(self) -> Signature:
        return self.ordinary.signature

    def _feed(self, tensors: tuple[Tensor, ...]) -> Feed:
        return checking.feed(self._signature.input_names, tensors)

    def _confidence(self) -> np.ndarray:
        """How sure the network without dendrites is of each validation row; not at all where that is no number."""
        session = RUNTIMES.find("onnxruntime").open(self.base.SerializeToString(), threads=1)

        def forward(inputs: Inputs) -> Tensor:
            return torch.from_numpy(session(self._feed(arranged(inputs, self._signature)))[0])

        answers, _ = training.predict(forward, self.rows.validation)
        found: np.ndarray = np.nan_to_num(checking.array(answers.softmax(1).max(1).values), nan=0.0)
        return found

    def _mix(self, confidence: np.ndarray) -> list[Feed]:
        """Single validation rows, spread evenly over how sure the network is of them, in no order."""
        count = min(_MIX, len(confidence))
        places = ((np.arange(count) + 0.5) * len(confidence) / count).astype(int)
        wanted = set(np.argsort(confidence, kind="stable")[places].tolist())
        found: list[Feed] = []
        start = 0
        for inputs, targets in training.batches(self.rows.validation, _BATCH):
            tensors = arranged(inputs, self._signature)
            own = [index - start for index in wanted if start <= index < start + len(targets)]
            found += [self._feed(tuple(x[i : i + 1] for x in tensors)) for i in own]
            start += len(targets)
        order = np.random.default_rng(0).permutation(len(found))
        return [found[index] for index in order]


def _seconds(files: Mapping[str, Path], mix: Sequence[Feed], where: Target) -> dict[str, list[float]]:
    """Of the mix of rows in each file. Raises ExportError where the target does not run one of them."""
    runtime = RUNTIMES.find(where.runtime)

    def opened(file: Path) -> Mixed:
        return Mixed(runtime.open(file, threads=where.threads), mix)

    found, troubles = timed({name: partial(opened, file) for name, file in files.items()}, mix[0], rounds=_ROUNDS)
    for trouble in troubles.values():
        raise ExportError(f"gates cannot be measured in {where.runtime}: {trouble}; export without --gate")
    return found


def _best(trials: Sequence[GateTrial], before: float, tolerance: float) -> int:
    """Where the fastest trial is that holds the metric and runs dendrites for some rows; the last one always may."""
    enough = [index for index, each in enumerate(trials) if each.share and holds(before, each.metric, tolerance)]
    if not enough:
        raise MismatchError("no gate holds the validation metric, or it is no number; nothing was written")
    return min(enough, key=lambda index: trials[index].latency.median)


def _refusal(report: GateReport) -> str:
    best = report.chosen.latency
    return (
        f"no gate that loses {report.allowed:.2g} of the metric at most saves time in {report.runtime}: the fastest"
        f" takes {best.median:.2f} of the ordinary file's time (99% limits {best.low:.2f} to {best.high:.2f}), so that"
        " the ordinary export is the better one; nothing was written: export without --gate"
    )


def _facts(report: GateReport) -> dict[str, Any]:
    """What the file says of its gate."""
    chosen = report.chosen
    metric = {"before": report.before, "after": chosen.metric}
    return {"threshold": chosen.threshold, "share": chosen.share, "metric": metric}
