"""Turns a grafted evaluation graph into an ONNX model of a chosen opset."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import onnx
import onnx.checker
import onnx.version_converter
import torch
from torch import Tensor, fx

from graftkit.core.errors import ExportError
from graftkit.core.pause import no_collection

OPSETS = range(17, 26)  # what can be asked for; the exporter itself writes 18 and newer
DEFAULT_OPSET = 20
_OLDEST_WRITTEN = 18


def to_onnx(graph: fx.GraphModule, inputs: tuple[Tensor, ...], *, opset: int, optimize: bool = True) -> onnx.ModelProto:
    """Export a graph module with a free batch dimension.

    Args:
        graph: in evaluation mode, returning one tensor.
        inputs: example inputs, batch of at least 2.
        opset: 17 to 25. The exporter writes 18 when asked for 17, so 17 is converted down, where it can be.
        optimize: fold constants and batch norms on the way.

    Raises:
        ExportError: the opset is not offered or could not be reached, or an operator has no ONNX form.
    """
    if opset not in OPSETS:
        raise ExportError(f"opset {opset} is not offered; choose {OPSETS.start} to {OPSETS.stop - 1}")
    asked = max(opset, _OLDEST_WRITTEN)
    try:
        with _calm():
            program = torch.export.export(graph, inputs, dynamic_shapes=_free_batch(inputs), strict=False)
            exported = torch.onnx.export(program, dynamo=True, opset_version=asked, optimize=optimize, verbose=False)
    except Exception as error:  # the exporter raises whatever a translation raises
        raise ExportError(f"the model cannot be written as ONNX: {_reason(error)}") from error
    assert exported is not None
    model = exported.model_proto
    if opset < asked:
        model = _converted(model, opset)
    written = {entry.domain: entry.version for entry in model.opset_import}
    if written.get("") != opset:
        raise ExportError(f"asked for opset {opset}, the exporter wrote {written.get('')}; choose another --opset")
    return model


def check_standard(model: onnx.ModelProto) -> None:
    """Raise ExportError unless the model is valid and has operators of the standard ONNX domain alone."""
    foreign = {node.domain for node in model.graph.node if node.domain not in ("", "ai.onnx")}
    if foreign or model.functions:
        raise ExportError(f"the exported graph uses operators outside the standard domain: {sorted(foreign)}")
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the exported graph is not valid ONNX: {str(error).splitlines()[0]}") from error


def _converted(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    for node in model.graph.node:
        for attribute in [a for a in node.attribute if a.name == "noop_with_empty_axes" and a.i == 0]:
            node.attribute.remove(attribute)  # new in 18 and at its default; the converter leaves it standing
    try:
        return onnx.version_converter.convert_version(model, opset)
    except Exception as error:  # the converter raises RuntimeError and its own kinds
        raise ExportError(
            f"the graph cannot be converted down to opset {opset} ({str(error).splitlines()[0][:160]}); use --opset"
            f" {_OLDEST_WRITTEN} or newer"
        ) from error


def _free_batch(inputs: tuple[Tensor, ...]) -> tuple[dict[int, object], ...]:
    return tuple({0: torch.export.Dim.DYNAMIC} if tensor.ndim else {} for tensor in inputs)


@contextmanager
def _calm() -> Iterator[None]:
    """Without the exporter's remarks that are known to be harmless."""
    log = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = log.level
    log.setLevel(logging.ERROR)  # it says that torchvision is not installed
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with no_collection(), torch.no_grad(), _without_stack_traces(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning, message=r"`isinstance\(treespec, LeafSpec\)`")
            warnings.filterwarnings("ignore", category=DeprecationWarning)  # of the exporter's own packages
            yield
    finally:
        log.setLevel(level)
        torch.backends.mha.set_fastpath_enabled(fast)


@contextmanager
def _without_stack_traces() -> Iterator[None]:
    """Without a Python stack trace for every node: they cost a third of the time, and the file drops them anyway."""
    config = torch.fx.config
    before = config.do_not_emit_stack_traces
    config.do_not_emit_stack_traces = True
    try:
        yield
    finally:
        config.do_not_emit_stack_traces = before


def _reason(error: Exception) -> str:
    cause = error.__cause__ or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return f"{type(cause).__name__}: {lines[0][:300] if lines else 'no reason given'}"
