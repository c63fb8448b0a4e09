"""The largest or smallest number over some axes becomes a pooling: pnnx reads no ReduceMax that has a list of axes."""

from __future__ import annotations

from itertools import pairwise
from math import prod

import onnx
from onnx import helper

from graftkit.runtimes.pnnx.known import Known


def pool_maxima(node: onnx.NodeProto, known: Known) -> list[onnx.NodeProto]:
    """The axes go behind the others, and a pool of all places takes the largest; the smallest, of what is negated.

    What is reduced over the rows, of which there is one, stays as it is.
    """
    if node.op_type not in ("ReduceMax", "ReduceMin"):
        return []
    shape, axes = known.shapes.get(node.input[0]), known.numbers(node, 1)
    if not axes or shape is None or 0 in shape or shape[0] != 1:
        return []
    gone = sorted({axis % len(shape) for axis in axes} - {0})
    kept = [axis for axis in range(len(shape)) if axis not in gone]
    if len(gone) != len(axes) or known.kinds.get(node.input[0]) != onnx.TensorProto.FLOAT:
        return []
    keepdims = next((option.i for option in node.attribute if option.name == "keepdims"), 1)
    left = [1 if axis in gone else size for axis, size in enumerate(shape) if keepdims or axis in kept]
    places = [1, prod(shape[axis] for axis in kept), prod(shape[axis] for axis in gone), 1]

    result, base = node.output[0], known.base(node)
    steps = [("Reshape", [known.listed(f"{base}.places", places)]), ("GlobalMaxPool", []),
             ("Reshape", [known.listed(f"{base}.left", left)])]  # fmt: skip
    if node.op_type == "ReduceMin":
        steps[1:2] = [("Neg", []), ("GlobalMaxPool", []), ("Neg", [])]
    names = [node.input[0], *(f"{base}.{number}" for number in range(len(steps) - 1)), result]
    made = [
        helper.make_node(operator, [name, *lists], [after])
        for (operator, lists), (name, after) in zip(steps, pairwise(names), strict=True)
    ]
    if kept + gone != list(range(len(shape))):
        made.insert(0, helper.make_node("Transpose", [names[0]], [f"{base}.turned"], perm=kept + gone))
        made[1].input[0] = f"{base}.turned"
    return made
