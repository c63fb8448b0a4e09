"""A reduction over one axis becomes one over two, the other of size one.

pnnx keeps a list of one axis as a number, and where it writes ncnn's layer it looks for a list: it finds none, and the
layer reduces nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx
from onnx import helper

from graftkit.runtimes.pnnx.known import Known

_REDUCTIONS = ("ReduceMean", "ReduceSum", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSumExp")
_MOST = 4  # axes of a value in ncnn, where none of them is the one row


@dataclass(frozen=True)
class _Pair:
    """The axis that is reduced and the one of size one that goes with it, and the axes that are taken away after."""

    other: int
    axis: int
    made: bool
    gone: tuple[int, ...]


def reduce_two(node: onnx.NodeProto, known: Known) -> list[onnx.NodeProto]:
    """The one row goes with the axis, or another of size one; where there is none, it is made if there is room."""
    pair = _pair(node, known) if node.op_type in _REDUCTIONS else None
    if pair is None:
        return []
    name, result, base, nodes = node.input[0], node.output[0], known.base(node), []
    if pair.made:
        name = f"{base}.wide"
        nodes.append(helper.make_node("Unsqueeze", [node.input[0], known.listed(f"{base}.made", [0])], [name]))
    reduced = f"{base}.reduced" if pair.gone else result
    axes = known.listed(f"{base}.pair", [pair.other, pair.axis])
    nodes.append(helper.make_node(node.op_type, [name, axes], [reduced], keepdims=1))
    if pair.gone:
        nodes.append(helper.make_node("Squeeze", [reduced, known.listed(f"{base}.gone", pair.gone)], [result]))
    return nodes


def _pair(node: onnx.NodeProto, known: Known) -> _Pair | None:
    """What a reduction becomes; None where it is of no single axis, or no axis goes with it."""
    axes, shape = known.numbers(node, 1), known.shapes.get(node.input[0])
    if axes is None or len(axes) != 1 or shape is None:
        return None
    axis = axes[0] % len(shape)
    kept = next((option.i for option in node.attribute if option.name == "keepdims"), 1)
    ones = [other for other, size in enumerate(shape) if size == 1 and other != axis]
    if ones:
        return _Pair(ones[0], axis, made=False, gone=() if kept else (axis,))
    if len(shape) >= _MOST:
        return None
    return _Pair(0, axis + 1, made=True, gone=(0,) if kept else (0, axis + 1))
