"""Turns a grafted evaluation graph into an ONNX model of a chosen opset."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np
import onnx
import onnx.checker
import onnx.version_converter
import onnx_ir as ir
import torch
from onnxscript.rewriter._pattern_ir import Constant
from onnxscript.rewriter.rules.common import _no_op
from torch import Tensor, fx
from torch.onnx._internal.exporter import _registration

from graftkit.core.errors import ExportError
from graftkit.core.pause import no_collection
from graftkit.core.signature import Signature
from graftkit.folding.ports import free_sizes, graphs_of, name_ports, name_sizes
from graftkit.folding.reasons import reason
from graftkit.folding.translations import TRANSLATIONS
from graftkit.folding.written import LARGE, Load, Written, closed, opened

OPSETS = range(17, 26)  # what can be asked for; the exporter itself writes 18 and newer
DEFAULT_OPSET = 20
_OLDEST_WRITTEN = 18


def to_onnx(
    graph: fx.GraphModule,
    inputs: tuple[Tensor, ...],
    *,
    opset: int,
    signature: Signature,
    optimize: bool = True,
    large: int = LARGE,
) -> Written:
    """Export a graph module; what has a name in the signature's shapes stays free.

    Args:
        graph: in evaluation mode, taking tensors in order, returning one tensor or a tuple.
        inputs: example inputs, batch of at least 2.
        opset: 17 to 25. The exporter writes 18 when asked for 17, so 17 is converted down, where it can be.
        signature: what inputs, outputs and free sizes are to be called.
        optimize: fold constants and batch norms on the way.
        large: weights of more bytes stay out of the graph, and are not copied.

    Raises:
        ExportError: the opset is not offered or could not be reached, or an operator has no ONNX form.
    """
    if opset not in OPSETS:
        raise ExportError(f"opset {opset} is not offered; choose {OPSETS.start} to {OPSETS.stop - 1}")
    asked = max(opset, _OLDEST_WRITTEN)
    sizes = free_sizes(inputs, signature)
    program = None
    try:
        with _calm():
            program = torch.export.export(graph, inputs, dynamic_shapes=sizes, strict=False)
            exported = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=asked,
                optimize=optimize,
                verbose=False,
                custom_translation_table=dict(TRANSLATIONS),
            )
    except Exception as error:  # the exporter raises whatever a translation raises
        raise ExportError(f"the model cannot be written as ONNX: {reason(error, program)}") from error
    assert exported is not None
    _keep_constants(exported.model.graph)
    name_ports(exported.model, signature)
    written = _without_weights(exported.model, large)
    if opset < asked:
        written = replace(written, proto=_converted(written.proto, opset))
    name_sizes(written.proto, signature)
    found = {entry.domain: entry.version for entry in written.proto.opset_import}
    if found.get("") != opset:
        raise ExportError(f"asked for opset {opset}, the exporter wrote {found.get('')}; choose another --opset")
    return written


def _keep_constants(graph: ir.Graph) -> None:
    """Give back, in place, constants that are read and no longer kept.

    Where one value is clipped in several ways, the exporter's optimizer calls the constants it makes alike, and keeps
    the last of each name.
    """
    kept = {id(value) for value in (*graph.initializers.values(), *graph.inputs)}
    for node in graph.all_nodes():
        for value in node.inputs:
            if value is None or value.producer() is not None or value.const_value is None or id(value) in kept:
                continue
            if value.graph is not None and value.graph is not graph:
                continue  # of a graph within
            kept.add(id(value))
            stem, number = value.name or "constant", 0
            while value.name is None or value.name in graph.initializers:
                number += 1
                value.name = f"{stem}_kept_{number}"
            graph.register_initializer(value)


def _without_weights(model: ir.Model, large: int) -> Written:
    """The model with its large weights taken out, in place; they stay views of the live model."""
    weights: dict[str, Load] = {}
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor is None or tensor.nbytes <= large or tensor.dtype.bitwidth < 8:
            continue
        where = str(len(weights))
        weights[where] = tensor.numpy
        shape = ir.Shape(tensor.shape.numpy())
        value.const_value = ir.ExternalTensor(where, None, None, tensor.dtype, shape=shape, name=name)
    return Written(ir.serde.serialize_model(model), weights, large)


def check_standard(model: onnx.ModelProto) -> None:
    """Raise ExportError unless the model is valid and has operators of the standard ONNX domain alone.

    Where the exporter noted inner sizes that onnx infers otherwise, the notes are dropped, in place.
    """
    foreign = {node.domain for graph in graphs_of(model.graph) for node in graph.node} - {"", "ai.onnx"}
    if foreign or model.functions:
        raise ExportError(f"the exported graph uses operators outside the standard domain: {sorted(foreign)}")
    try:
        try:
            onnx.checker.check_model(opened(model), full_check=True)
        except onnx.shape_inference.InferenceError:
            del model.graph.value_info[:]
            onnx.checker.check_model(opened(model), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the exported graph is not valid ONNX: {str(error).splitlines()[0]}") from error


def _converted(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    nodes = [node for graph in graphs_of(model.graph) for node in graph.node]
    for node in nodes:
        for attribute in [a for a in node.attribute if a.name == "noop_with_empty_axes" and a.i == 0]:
            node.attribute.remove(attribute)  # new in 18 and at its default; the converter leaves it standing
    try:
        return closed(onnx.version_converter.convert_version(opened(model), opset), model)
    except Exception as error:  # the converter raises RuntimeError and its own kinds
        raise ExportError(
            f"the graph cannot be converted down to opset {opset} ({str(error).splitlines()[0][:160]}); use --opset"
            f" {_OLDEST_WRITTEN} or newer"
        ) from error


@contextmanager
def _calm() -> Iterator[None]:
    """Without the exporter's remarks that are known to be harmless."""
    log = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = log.level
    log.setLevel(logging.ERROR)  # it says that torchvision is not installed
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with (
            no_collection(),
            torch.no_grad(),
            _without_stack_traces(),
            _exactly(),
            _operators_known(),
            np.errstate(all="ignore"),  # the exporter computes constants with numpy; log(0) is what the model says
            warnings.catch_warnings(),
        ):
            warnings.filterwarnings("ignore", category=FutureWarning, message=r"`isinstance\(treespec, LeafSpec\)`")
            warnings.filterwarnings("ignore", category=DeprecationWarning)  # of the exporter's own packages
            yield
    finally:
        log.setLevel(level)
        torch.backends.mha.set_fastpath_enabled(fast)


@contextmanager
def _exactly() -> Iterator[None]:
    """Without tolerance in the rules that drop `+ 0` and `* 1`: they would drop the 1e-8 of a logarithm, too."""
    constants = [
        value
        for rule in _no_op.rules.rules
        for node in rule._target_pattern
        for value in node.inputs
        if isinstance(value, Constant)
    ]
    before = [(value, value._rel_tol, value._abs_tol) for value in constants]
    for value in constants:
        value._rel_tol = value._abs_tol = 0.0
    try:
        yield
    finally:
        for value, relative, absolute in before:
            value._rel_tol, value._abs_tol = relative, absolute


@contextmanager
def _operators_known() -> Iterator[None]:
    """With the list of operators that an earlier export made: for each list the sources of 500 functions are parsed.

    That is almost half of the time in which a small model is written.
    """
    given: Any = vars(_registration)["onnxscript_apis"]  # looks a name up in onnxscript unless it has it itself
    given.get_torchlib_ops = partial(_listed, given.get_torchlib_ops)
    try:
        yield
    finally:
        vars(given).pop("get_torchlib_ops", None)


@cache
def _listed(read: Callable[[], Sequence[Any]]) -> tuple[Any, ...]:
    return tuple(read())


@contextmanager
def _without_stack_traces() -> Iterator[None]:
    """Without a Python stack trace for every node: they cost a third of the time, and the file drops them anyway.

    Before torch 2.12 they cannot be left out.
    """
    config = torch.fx.config
    if not hasattr(config, "do_not_emit_stack_traces"):
        yield
        return
    before = config.do_not_emit_stack_traces
    config.do_not_emit_stack_traces = True
    try:
        yield
    finally:
        config.do_not_emit_stack_traces = before
