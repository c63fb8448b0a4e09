"""Channels that stand or go together: what makes them, what passes each on by itself, what reads them."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs

from graftkit.folding.rewrites.calls import axis_of, own_weights
from graftkit.folding.rewrites.tensors import rank

ELEMENTWISE = frozenset(
    {"Abs", "Add", "Ceil", "Clip", "Cos", "Div", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish"}
    | {"LeakyRelu", "Mish", "Mul", "Neg", "PRelu", "Relu", "Selu", "Sigmoid", "Sin", "Softplus", "Softsign", "Sqrt"}
    | {"Sub", "Tanh"}
)
POOLS = frozenset({"AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"})
_FLOATS = (np.float32, np.float64)  # what is in smaller numbers would lose some in a sum of them


@dataclass(frozen=True, eq=False)
class Channels:
    """A set of tensors of which each channel is made of the channel at its place in the others.

    Attributes:
        count: how many channels there are.
        axes: along which axis they lie, by tensor's name.
        tensors: by name.
        makers: Conv, Gemm and MatMul nodes that give them, each with weights of its own.
        steps: nodes that read and give them, depthwise convolutions among these.
        readers: Conv (of one group), Gemm and MatMul nodes that add them up, each with weights of its own.
    """

    count: int
    axes: dict[str, int] = field(default_factory=dict)
    tensors: dict[str, gs.Tensor] = field(default_factory=dict)
    makers: list[gs.Node] = field(default_factory=list)
    steps: list[gs.Node] = field(default_factory=list)
    readers: list[gs.Node] = field(default_factory=list)


def channels_of(call: gs.Node, inside: Set[int], outputs: Set[str]) -> Channels | None:
    """All that depends on the channels a call gives; None where anything reads or makes them in another way.

    Args:
        call: a Conv, Gemm or MatMul.
        inside: the `id` of each node of the graph itself.
        outputs: names of tensors that have to stay as they are.
    """
    if not is_call(call):
        return None
    found = Channels(call.inputs[1].shape[axis_of(call)])
    waiting = [(call.outputs[0], _axis_given(call))]
    while waiting:
        tensor, axis = waiting.pop()
        if tensor.name in found.axes:
            if found.axes[tensor.name] != axis:
                return None
            continue
        if axis is None or tensor.name in outputs or not _lies(tensor, axis, found.count):
            return None
        found.axes[tensor.name], found.tensors[tensor.name] = axis, tensor
        for node in (*tensor.inputs, *tensor.outputs):
            others = _through(node, tensor, axis, found) if id(node) in inside else None
            if others is None:
                return None
            waiting += others
    return found


def is_call(node: gs.Node) -> bool:
    """Whether it is W x + b over all channels of x, with constants of its own in single or double precision."""
    if not own_weights(node) or node.attrs.get("transA", 0) or node.attrs.get("group", 1) != 1:
        return False
    bias = node.inputs[2].shape if len(node.inputs) > 2 else None
    plain = bias is None or tuple(bias) == (node.inputs[1].shape[axis_of(node)],)
    return plain and node.inputs[1].dtype in _FLOATS


def is_depthwise(node: gs.Node) -> bool:
    """Whether it is a convolution of each channel by itself, with constants of its own."""
    if node.op != "Conv" or not own_weights(node) or node.inputs[1].dtype not in _FLOATS:
        return False
    return bool(node.attrs.get("group", 1) == node.inputs[1].shape[0] and node.inputs[1].shape[1] == 1)


def constant_channels(tensor: gs.Tensor, count: int, dims: int, axis: int) -> bool | None:
    """Whether a constant beside a tensor of so many dimensions has a number a channel (True) or one for all (False).

    None where it has more.
    """
    sizes = (1,) * (dims - len(tensor.shape)) + tuple(tensor.shape)
    if len(sizes) > dims:
        return None
    if all(size == 1 for size in sizes):
        return False
    alone = sizes[axis] == count and all(size == 1 for place, size in enumerate(sizes) if place != axis)
    return True if alone and len(tensor.outputs) == 1 else None


def _axis_given(call: gs.Node) -> int | None:
    dims = rank(call.outputs[0])
    return 1 if call.op == "Conv" else None if dims is None else dims - 1


def _lies(tensor: gs.Tensor, axis: int, count: int) -> bool:
    if isinstance(tensor, gs.Constant) or tensor.shape is None or len(tensor.inputs) != 1:
        return False
    return 0 < axis < len(tensor.shape) and tensor.shape[axis] == count


def _through(node: gs.Node, tensor: gs.Tensor, axis: int, found: Channels) -> list[tuple[gs.Tensor, int | None]] | None:
    """Take a node into what was found; the tensors that it brings in, None where it treats channels otherwise."""
    if any(node is known for known in (*found.steps, *_own(node, tensor, found))):
        return []
    if len(node.outputs) != 1:
        return None
    if is_depthwise(node):
        found.steps.append(node)
        return [(node.inputs[0], 1), (node.outputs[0], 1)]
    if is_call(node):
        return _at_call(node, tensor, axis, found)
    brought = _at_step(node, axis, tensor)
    if brought is not None:
        found.steps.append(node)
    return brought


def _own(node: gs.Node, tensor: gs.Tensor, found: Channels) -> Sequence[gs.Node]:
    return found.makers if any(given is tensor for given in node.outputs) else found.readers


def _at_call(node: gs.Node, tensor: gs.Tensor, axis: int, found: Channels) -> list[tuple[gs.Tensor, int | None]] | None:
    if node.outputs[0] is tensor:
        found.makers.append(node)
        return [] if axis == _axis_given(node) else None
    dims = rank(tensor)
    along = 1 if node.op == "Conv" else (dims or 0) - 1
    if axis != along or (node.op == "Gemm" and dims != 2) or node.inputs[0] is not tensor:
        return None
    found.readers.append(node)
    return []


def _at_step(node: gs.Node, axis: int, tensor: gs.Tensor) -> list[tuple[gs.Tensor, int | None]] | None:
    dims = rank(tensor)
    if node.op in ELEMENTWISE and node.domain in (None, "", "ai.onnx"):
        return _at_elementwise(node, axis, dims or 0, tensor.shape[axis])
    if node.op in POOLS:
        return [(node.inputs[0], 1), (node.outputs[0], 1)]
    return _at_mean(node, axis, tensor) if node.op == "ReduceMean" else None


def _at_elementwise(node: gs.Node, axis: int, dims: int, count: int) -> list[tuple[gs.Tensor, int | None]] | None:
    brought: list[tuple[gs.Tensor, int | None]] = [(node.outputs[0], axis)]
    for given in node.inputs:
        if isinstance(given, gs.Constant):
            if constant_channels(given, count, dims, axis) is None:
                return None
        elif not given.is_empty():
            brought.append((given, axis))
    return brought if all(rank(each) == dims for each, _ in brought) else None


def _at_mean(node: gs.Node, axis: int, tensor: gs.Tensor) -> list[tuple[gs.Tensor, int | None]] | None:
    """A mean over other axes than the channels and the rows; only from what it reads, which has all axes."""
    source = node.inputs[0]
    axes, dims = mean_axes(node), rank(source)
    if axes is None or dims is None:
        return None
    places = {place % dims for place in axes}
    kept = [place for place in range(dims) if place not in places]
    flat = not node.attrs.get("keepdims", 1)
    before = axis if source is tensor or not flat else kept[axis]
    if {0, before} & places:
        return None
    return [(source, before), (node.outputs[0], kept.index(before) if flat else before)]


def mean_axes(node: gs.Node) -> Sequence[int] | None:
    """The axes of a ReduceMean, None where they are not known."""
    given = node.attrs.get("axes")
    if given is None and len(node.inputs) > 1 and isinstance(node.inputs[1], gs.Constant):
        given = node.inputs[1].values.reshape(-1).tolist()
    return None if not given else [int(place) for place in given]


def minds_border(node: gs.Node) -> bool:
    """Whether zeros around what it reads may count, so that a number that is the same everywhere does not stay so."""
    counts = node.op == "AveragePool" and bool(node.attrs.get("count_include_pad", 0))
    if not counts and node.op != "Conv":
        return False
    padded = any(node.attrs.get("pads") or ()) or bool(node.attrs.get("ceil_mode", 0))
    return padded or node.attrs.get("auto_pad", "NOTSET") not in ("NOTSET", b"NOTSET", "VALID", b"VALID")
