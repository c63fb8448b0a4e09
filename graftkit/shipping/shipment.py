"""Builds, writes, verifies and puts in place; what does not hold at another size is fixed and tried again."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx
import torch

from graftkit import folding
from graftkit.contracts import Data, Metric
from graftkit.core.errors import ExportError
from graftkit.core.signature import Port, Signature
from graftkit.folding import ONE_FILE, Written, staged
from graftkit.model import GraftedModel
from graftkit.shipping.building import build
from graftkit.shipping.layouts import AUTO, PORTABLE, Target, layouts_for
from graftkit.shipping.probes import one_row
from graftkit.shipping.verifying import SizeMismatch, runtime_metric, verify


@dataclass(frozen=True)
class Shipped:
    """A file that was verified and written.

    Attributes:
        path: the file.
        parity: the largest relative difference to the trained model, by runtime.
        metric: the validation metric through onnxruntime alone, where it was asked for.
        signature: inputs and outputs as the file has them.
        layouts: by site key, how a grafted site is written that is not written as branches.
        notes: what a user has to know about it, one line each.
    """

    path: Path
    parity: Mapping[str, float]
    metric: float | None
    signature: Signature
    layouts: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def ship(
    model: GraftedModel,
    path: str | Path,
    rows: Data | None = None,
    *,
    opset: int = folding.DEFAULT_OPSET,
    facts: Mapping[str, Any] | None = None,
    metric: Metric | None = None,
    layout: str = PORTABLE,
    target: Target | None = None,
    one_file: int = ONE_FILE,
    on_stage: Callable[[str], None] = lambda text: None,
) -> Shipped:
    """Write the model as one plain ONNX file, once it has proved to compute the same.

    Where the file is wrong at another size than the example's (image, sequence length), that size is fixed in it, and
    the notes say so.

    Args:
        model: with its trained weights.
        path: where to write.
        rows: data whose validation rows are compared, besides random ones.
        opset: 17 to 25.
        facts: written as JSON into the file's metadata, beside the plan.
        metric: to be computed on the validation rows.
        layout: how grafted sites are written: "portable" by rule, "auto" as it measures fastest, or a name in LAYOUTS.
        target: where "auto" measures; onnxruntime on one thread where it is None.
        one_file: a model of more bytes has its weights in a file of their own beside `path`; 2 GiB at most.
        on_stage: told what happens.

    Raises:
        ExportError, MismatchError: then nothing is written.
        RunError: the folder cannot be written to.
    """
    signature, notes, layouts = model.traced.signature, [], None
    while True:
        on_stage("exporting")
        try:
            written = build(model, opset=opset, facts=facts, signature=signature, large=min(folding.LARGE, one_file))
        except ExportError as error:  # some operators have an ONNX form at a known size alone
            others = _free_sizes(signature)
            if not others:
                raise
            for size in others:
                signature = with_fixed(signature, size, model)
            notes.append(f"{' and '.join(others)} fixed in the ONNX file: {error}")
            continue
        if layouts is None:
            if layout == AUTO:
                on_stage("measuring layouts")
            layouts = layouts_for(layout, written, one_row(model), target or Target())
        layouts = _arranged(written, layouts)
        try:
            with staged(written, path, one_file=min(one_file, ONE_FILE)) as draft:
                on_stage("verifying")
                parity = verify(draft, model, rows)
                score = None if metric is None or rows is None else runtime_metric(draft, rows, metric)
        except SizeMismatch as error:
            signature = with_fixed(signature, error.size, model)
            notes.append(f"{error.size} is fixed in the ONNX file, which would be wrong at another: {error}")
        else:
            return Shipped(Path(path), parity, score, signature, layouts, tuple(notes))


def whole_file(path: Path, what: str, instead: str) -> onnx.ModelProto:
    """The model with all of its weights. Raises ExportError where they lie beside the file."""
    opened = folding.open_onnx(path)
    if opened.folder is not None:
        raise ExportError(
            f"{what} is for models that fit into one file, and this one has its weights beside it (2 GiB is the"
            f" limit); export it plainly, and {instead}"
        )
    return opened.complete()


def _arranged(model: Written, layouts: Mapping[str, str]) -> Mapping[str, str]:
    """Write the sites so, in place, and say so in the file; returns those that changed."""
    changed = folding.arrange(model.proto, layouts)
    found = {site: layouts[site] for site in changed}
    if found:
        folding.tell(model.proto, layouts=found)
    return found


def _free_sizes(signature: Signature) -> list[str]:
    """The names of the sizes that are free besides the batch, the first size of all."""
    sizes = [size for port in signature.inputs for size in port.shape if isinstance(size, str) and size.isidentifier()]
    return list(dict.fromkeys(sizes))[1:]


def with_fixed(signature: Signature, size: str, model: GraftedModel) -> Signature:
    """The signature with one free size fixed at what the model's example has."""
    with torch.no_grad():
        given = model.graphs[1](*model.traced.inputs)
    outputs = (given,) if isinstance(given, torch.Tensor) else tuple(given)
    fixed_inputs, fixed_outputs = (
        tuple(_fixed(port, size, tuple(tensor.shape)) for port, tensor in zip(ports, tensors, strict=True))
        for ports, tensors in ((signature.inputs, model.traced.inputs), (signature.outputs, outputs))
    )
    return replace(signature, inputs=fixed_inputs, outputs=fixed_outputs)


def _fixed(port: Port, size: str, shape: tuple[int, ...]) -> Port:
    return replace(port, shape=tuple(_size(now, size, number) for now, number in zip(port.shape, shape, strict=True)))


def _size(now: int | str, fixed: str, number: int) -> int | str:
    """A size of which one part is no longer free; what depends on others, too, keeps its name."""
    if now == fixed:
        return number
    parts = set(re.findall(r"[A-Za-z_]\w*", now)) if isinstance(now, str) else set()
    return number if parts == {fixed} else now
