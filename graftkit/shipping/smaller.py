"""A trained model in smaller numbers: written in full, verified, lowered, and shipped if the metric holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx
from torch.utils.data import DataLoader, Subset

from graftkit import checking, folding, training
from graftkit.contracts import Data, Feed, Lowered, Metric
from graftkit.core.errors import ExportError, MismatchError
from graftkit.core.signature import Signature
from graftkit.folding import ONE_FILE, Written, staged
from graftkit.model import GraftedModel, arranged
from graftkit.precisions import PRECISIONS
from graftkit.shipping.comparing import Compared, compared
from graftkit.shipping.layouts import PORTABLE, Target
from graftkit.shipping.promises import TOLERANCE, allowed, holds
from graftkit.shipping.shipment import Shipped, ship, whole_file

_BATCH = 64  # training rows in a feed
_FEEDS = 8


@dataclass(frozen=True)
class Smaller:
    """A file in smaller numbers that was checked and written.

    Attributes:
        path: the file.
        precision: what its numbers are kept in.
        before, after: the validation metric through onnxruntime alone, in fp32 and as it is written.
        bytes_before, bytes_after: of the file in fp32, and of this one.
        latency: the time of one row on one thread of this machine, over that in fp32: for information.
        difference: the largest difference of an output to fp32, relative to the outputs' scale.
        signature: inputs and outputs as the file has them.
        notes: what a user has to know about it, one line each.
    """

    path: Path
    precision: str
    before: float
    after: float
    bytes_before: int
    bytes_after: int
    latency: float
    difference: float
    signature: Signature
    notes: tuple[str, ...] = ()


def ship_smaller(
    model: GraftedModel,
    path: str | Path,
    rows: Data,
    metric: Metric,
    *,
    precision: str,
    tolerance: float = TOLERANCE,
    opset: int = folding.DEFAULT_OPSET,
    facts: Mapping[str, Any] | None = None,
    layout: str = PORTABLE,
    target: Target | None = None,
    one_file: int = ONE_FILE,
    on_stage: Callable[[str], None] = lambda text: None,
) -> Smaller:
    """Write the model as one ONNX file in smaller numbers, once its metric on the validation rows has proved to hold.

    Args:
        model: with its trained weights.
        path: where to write.
        rows: what is measured comes from training rows; the metric is that of the validation rows.
        metric: higher is better.
        precision: a name of `graftkit.precisions.PRECISIONS`.
        tolerance: how much of the metric may be lost, in its own unit; of one below zero (a loss with a minus) a share.
        opset: 17 to 25; `int4` needs 21.
        facts: written as JSON into the file's metadata, beside the plan.
        layout, target: as `ship` takes them; "auto" measures the file in fp32.
        one_file: a model of more bytes is refused, since its weights would lie beside it.
        on_stage: told what happens.

    Raises:
        ExportError: there is no such form of the model; MismatchError: it costs too much. Then nothing is written.
        RunError: the folder cannot be written to.
    """
    kind = PRECISIONS.find(precision)
    if opset < kind.opset:
        raise ExportError(f"{kind.name} needs opset {kind.opset} or newer; pass --opset {kind.opset}")
    with TemporaryDirectory() as folder:
        full = Path(folder) / "model.onnx"
        how: dict[str, Any] = {"opset": opset, "facts": facts, "layout": layout, "target": target}
        shipped = ship(model, full, rows, metric=metric, one_file=one_file, on_stage=on_stage, **how)
        on_stage(f"to {kind.name}")
        return lower(shipped, path, rows, metric, precision=precision, tolerance=tolerance)


def lower(
    shipped: Shipped,
    path: str | Path,
    rows: Data,
    metric: Metric,
    *,
    precision: str,
    tolerance: float = TOLERANCE,
) -> Smaller:
    """What `ship_smaller` does with a file in fp32 that was verified, and of which the metric is known."""
    kind = PRECISIONS.find(precision)
    whole = whole_file(shipped.path, kind.name, "let the runtime make its numbers smaller")
    forms = kind.lower(whole, list(feeds(rows, shipped.signature)))
    return _first_that_holds(forms, whole, shipped, Path(path), _Check(kind.name, rows, metric, tolerance))


def feeds(rows: Data, signature: Signature) -> Iterator[Feed]:
    """Batches of training rows, spread over all of them; the first of a loader, whose rows come as they come."""
    first = signature.inputs[0].shape[:1]
    size = first[0] if first and isinstance(first[0], int) else _BATCH
    chosen = rows.train
    if not isinstance(chosen, DataLoader):
        count = len(chosen)  # type: ignore[arg-type]
        few = min(count, size * _FEEDS)
        chosen = Subset(chosen, [index * count // few for index in range(few)])
    for inputs, _ in islice(training.batches(chosen, size), _FEEDS):
        tensors = arranged(inputs, signature)
        if not first or not isinstance(first[0], int) or len(tensors[0]) == first[0]:
            yield checking.feed(signature.input_names, tensors)


@dataclass(frozen=True)
class _Check:
    """What a form has to stand."""

    precision: str
    rows: Data
    metric: Metric
    tolerance: float

    def stood(self, draft: Path, full: Path, before: float) -> Compared:
        """What a form gives. Raises MismatchError where it loses too much, ExportError where it is not loaded."""
        try:
            found = compared(draft, full, self.rows, self.metric)
        except (ExportError, MismatchError) as error:
            raise type(error)(f"{self.precision}: {error}; nothing was written, choose another precision") from error
        if holds(before, found.metric, self.tolerance):
            return found
        raise MismatchError(
            f"{self.precision} takes the validation metric from {before:.4f} to {found.metric:.4f}, and"
            f" {allowed(before, self.tolerance):.2g} less is tolerated; nothing was written: choose another precision,"
            " or a larger --tolerance"
        )


def _first_that_holds(
    forms: Iterable[Lowered], whole: onnx.ModelProto, shipped: Shipped, path: Path, check: _Check
) -> Smaller:
    before, failed = shipped.metric, None
    assert before is not None, "it was asked for"
    for form in forms:
        _keep_names(form.model, whole)
        folding.tell(form.model, precision=check.precision, tolerance=check.tolerance)
        folding.check_standard(form.model)
        try:
            with staged(Written(form.model), path) as draft:
                found = check.stood(draft, shipped.path, before)
        except MismatchError as error:
            failed = failed or error
        else:
            return _told(path, shipped, check.precision, found, form.notes)
    assert failed is not None, "a precision gives a form, or raises"
    raise failed


def _told(path: Path, shipped: Shipped, precision: str, found: Compared, notes: tuple[str, ...]) -> Smaller:
    assert shipped.metric is not None, "it was asked for"
    before, after = shipped.path.stat().st_size, path.stat().st_size
    larger = f"the file is no smaller than in fp32: {precision} adds more nodes than it saves of such small weights"
    return Smaller(
        path=path,
        precision=precision,
        before=shipped.metric,
        after=found.metric,
        bytes_before=before,
        bytes_after=after,
        latency=found.latency,
        difference=found.difference,
        signature=shipped.signature,
        notes=(*shipped.notes, *notes, *([larger] if after >= before else [])),
    )


def _keep_names(form: onnx.ModelProto, whole: onnx.ModelProto) -> None:
    """In place: what the file says of itself, and what its nodes are called and belong to, as in the whole model."""
    form.producer_name, form.producer_version = whole.producer_name, whole.producer_version
    del form.metadata_props[:]
    form.metadata_props.extend(whole.metadata_props)
    givers = {node.output[0]: node for node in whole.graph.node}
    for node in form.graph.node:
        known = givers.get(node.output[0])
        if known is not None and known.op_type == node.op_type:
            node.name = known.name
            del node.metadata_props[:]
            node.metadata_props.extend(known.metadata_props)
