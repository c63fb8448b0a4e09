"""Holds a file against a target's list: what of it would not be loaded, node by node."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from graftkit.core.errors import ExportError, shown
from graftkit.folding import graphs_of
from graftkit.targets.target import Finding, Limit, Target


def check(model: onnx.ModelProto, target: Target) -> tuple[Finding, ...]:
    """What is known against a file, in the order of its nodes; empty where nothing is.

    It is a check of lists and no run: what is not found may still fail, and lists are of the version they name. Sizes
    and types that shape inference does not find are not held against a file.

    Raises ExportError where the file is no consistent graph.
    """
    if target.refuses:
        return (Finding("", "", target.refuses, target.instead),)
    known = _known(model)
    found = [*_opset(model, target)]
    for graph in graphs_of(model.graph):
        for node in graph.node:
            found.extend(_node(node, target, known))
    return tuple(found)


@dataclass(frozen=True)
class _Known:
    """What is known of a file's values.

    Attributes:
        constants: those that are kept in it.
        fixed: those, and what is computed of them alone.
        batch: the first size of its first input; None where that is free.
        types, shapes: element types, and sizes (None where one is free).
    """

    constants: Mapping[str, TensorProto]
    fixed: frozenset[str]
    batch: int | None
    types: Mapping[str, str]
    shapes: Mapping[str, tuple[int | None, ...]]


def _known(model: onnx.ModelProto) -> _Known:
    try:
        inferred = onnx.shape_inference.infer_shapes(model)
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError) as error:
        raise ExportError(f"the file is no consistent ONNX graph: {shown(str(error), 200)}") from None
    constants, types, shapes = {}, {}, {}
    for graph in graphs_of(inferred.graph):
        constants.update({tensor.name: tensor for tensor in graph.initializer} | _given(graph))
        for value in (*graph.input, *graph.value_info, *graph.output):
            tensor = value.type.tensor_type
            if tensor.elem_type:
                types[value.name] = _type(tensor.elem_type)
            if tensor.HasField("shape"):
                sizes = (dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim)
                shapes[value.name] = tuple(sizes)
    types |= {name: _type(tensor.data_type) for name, tensor in constants.items()}
    shapes |= {name: tuple(tensor.dims) for name, tensor in constants.items()}
    inputs = [value.name for value in model.graph.input if value.name not in constants]
    batch = (shapes.get(inputs[0]) or (None,))[0] if inputs else None
    return _Known(constants, _fixed(model, constants), batch, types, shapes)


def _fixed(model: onnx.ModelProto, constants: Mapping[str, TensorProto]) -> frozenset[str]:
    """What does not depend on an input, such as a weight that is turned back into fp32."""
    fixed = set(constants)
    for graph in graphs_of(model.graph):  # outer ones first, whose values inner ones may read
        for node in graph.node:
            if node.input and all(name in fixed for name in node.input if name):
                fixed.update(node.output)
    return frozenset(fixed)


def _type(number: int) -> str:
    """What ONNX calls an element type; its number where there is none."""
    known = TensorProto.DataType.DESCRIPTOR.values_by_number
    return str(known[number].name) if number in known else str(number)


def _given(graph: onnx.GraphProto) -> dict[str, TensorProto]:
    """What Constant nodes give."""
    nodes = [node for node in graph.node if node.op_type == "Constant"]
    return {n.output[0]: attribute.t for n in nodes for attribute in n.attribute if attribute.name == "value"}


def _opset(model: onnx.ModelProto, target: Target) -> Iterator[Finding]:
    found = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if target.opsets is None or target.opsets[0] <= found <= target.opsets[1]:
        return
    low, high = target.opsets
    yield Finding("", "", f"opset {found}; its list is of {low} to {high}", f"export with --opset {min(high, 20)}")


def _node(node: onnx.NodeProto, target: Target, known: _Known) -> Iterator[Finding]:
    name = node.name or node.output[0]
    if node.domain not in ("", "ai.onnx"):
        yield Finding(name, node.op_type, f"of the domain {node.domain}, not the standard's", target.instead)
    elif node.op_type not in target.operators:
        yield Finding(name, node.op_type, "not on its list of operators", target.instead)
    else:
        for why in _types(node, target, known):
            yield Finding(name, node.op_type, why, "keep the model's numbers in fp32 or fp16")
        limit = target.limits.get(node.op_type, Limit())
        for why in _beyond(node, limit, known):
            yield Finding(name, node.op_type, why, limit.instead)


def _types(node: onnx.NodeProto, target: Target, known: _Known) -> Iterator[str]:
    there = dict.fromkeys(known.types[name] for name in (*node.input, *node.output) if name in known.types)
    for each in there:
        if target.types and each not in target.types:
            yield f"numbers of type {each}, which it does not take"


def _beyond(node: onnx.NodeProto, limit: Limit, known: _Known) -> Iterator[str]:
    """What is beyond a limit, one line each."""
    first = node.input[0] if node.input else ""
    shape, kind = known.shapes.get(first), known.types.get(first)
    if limit.ranks and shape is not None and len(shape) not in limit.ranks:
        yield f"{len(shape)} dimensions; it takes {_either(limit.ranks)}"
    if limit.types and kind is not None and kind not in limit.types:
        yield f"numbers of type {kind}; it takes {_either(limit.types)}"
    if limit.batch_one and known.batch not in (1, None):
        yield f"a batch of {known.batch}; it takes 1"
    if limit.outputs is not None and len([name for name in node.output if name]) > limit.outputs:
        yield f"more outputs than {limit.outputs}"
    yield from _inputs(node, limit, known)
    yield from _attributes(node, limit)


def _inputs(node: onnx.NodeProto, limit: Limit, known: _Known) -> Iterator[str]:
    for place in (place for place in limit.constant if place < len(node.input)):
        name = node.input[place]
        if name and name not in known.fixed:
            yield f"its input {place} ({name}) is not constant"
    for place in (place for place in limit.zero if place < len(node.input)):
        name = node.input[place]
        if name and not (name in known.constants and _is_zero(known.constants[name])):
            yield f"its input {place} ({name}) is not zero"


def _is_zero(tensor: TensorProto) -> bool:
    return tensor.data_location != TensorProto.EXTERNAL and not np.any(numpy_helper.to_array(tensor).astype(np.float32))


def _attributes(node: onnx.NodeProto, limit: Limit) -> Iterator[str]:
    for attribute in node.attribute:
        allowed = limit.values.get(attribute.name)
        value = helper.get_attribute_value(attribute)
        plain = value.decode(errors="replace") if isinstance(value, bytes) else value
        plain = tuple(plain) if isinstance(plain, list) else plain
        if allowed is not None and plain not in allowed:
            yield f"{attribute.name}={shown(str(plain), 60)}; it takes {_either(allowed)}"


def _either(values: Sequence[object]) -> str:
    return " or ".join(map(str, values))
