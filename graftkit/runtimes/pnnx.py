"""What pnnx is given in place of forms that it reads wrongly; it says the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx
from onnx import helper, numpy_helper

_REDUCTIONS = ("ReduceMean", "ReduceSum", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSumExp")

_MOST = 4  # axes of a value in ncnn, where none of them is the one row

Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class _Pair:
    """The axis that is reduced and the one of size one that goes with it, and the axes that are taken away after."""

    other: int
    axis: int
    made: bool
    gone: tuple[int, ...]


def spelled(content: bytes) -> bytes:
    """A file of fixed sizes, in which each reduction over one axis is one over two, the other of size one.

    pnnx keeps a list of one axis as a number, and where it writes ncnn's layer it looks for a list: it finds none, and
    the layer reduces nothing.
    """
    proto = onnx.load_model_from_string(content)
    if not any(node.op_type in _REDUCTIONS for node in proto.graph.node):
        return content
    shapes, axes = _shapes(proto), _single_axes(proto.graph)
    nodes = [new for node in proto.graph.node for new in _in_pairs(node, shapes, axes, proto.graph)]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    return bytes(proto.SerializeToString())


def _shapes(proto: onnx.ModelProto) -> Shapes:
    """Shapes by name; a size that is not known is zero."""
    graph = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    return {value.name: [size.dim_value for size in value.type.tensor_type.shape.dim] for value in values}


def _single_axes(graph: onnx.GraphProto) -> Mapping[str, int]:
    """The constants that are lists of one whole number."""
    nodes = ((node.output[0], attribute.t) for node in graph.node if node.op_type == "Constant"
             for attribute in node.attribute if attribute.name == "value")  # fmt: skip
    tensors = (*((tensor.name, tensor) for tensor in graph.initializer), *nodes)
    lists = (found for found in tensors if found[1].data_type == onnx.TensorProto.INT64 and list(found[1].dims) == [1])
    return {name: int(numpy_helper.to_array(tensor)[0]) for name, tensor in lists}


def _in_pairs(
    node: onnx.NodeProto, shapes: Shapes, axes: Mapping[str, int], graph: onnx.GraphProto
) -> Iterator[onnx.NodeProto]:
    """A node, or those that stand for a reduction over one axis."""
    pair = _pair(node, shapes, axes) if node.op_type in _REDUCTIONS else None
    if pair is None:
        yield node
        return
    name, result = node.input[0], node.output[0]
    if pair.made:
        name = f"{result}.wide"
        yield helper.make_node("Unsqueeze", [node.input[0], _list(graph, f"{result}.made", [0])], [name])
    reduced = f"{result}.reduced" if pair.gone else result
    axes_of = _list(graph, f"{result}.pair", [pair.other, pair.axis])
    yield helper.make_node(node.op_type, [name, axes_of], [reduced], keepdims=1)
    if pair.gone:
        yield helper.make_node("Squeeze", [reduced, _list(graph, f"{result}.gone", pair.gone)], [result])


def _pair(node: onnx.NodeProto, shapes: Shapes, axes: Mapping[str, int]) -> _Pair | None:
    """What a reduction becomes; None where it is of no single axis, or no axis goes with it."""
    shape = shapes.get(node.input[0])
    if not shape or len(node.input) < 2 or node.input[1] not in axes:
        return None
    axis = axes[node.input[1]] % len(shape)
    kept = next((attribute.i for attribute in node.attribute if attribute.name == "keepdims"), 1)
    ones = [other for other, size in enumerate(shape) if size == 1 and other != axis]
    if ones:
        return _Pair(ones[0], axis, made=False, gone=() if kept else (axis,))
    if len(shape) >= _MOST:
        return None
    return _Pair(0, axis + 1, made=True, gone=(0,) if kept else (0, axis + 1))


def _list(graph: onnx.GraphProto, name: str, numbers: Sequence[int]) -> str:
    """The name of a constant list, put into the graph."""
    graph.initializer.append(helper.make_tensor(name, onnx.TensorProto.INT64, [len(numbers)], numbers))
    return name
