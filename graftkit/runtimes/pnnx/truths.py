"""Which truth values of a file can be numbers, zero or one, without anything else noticing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Set

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

WHOLE = (TensorProto.INT64, TensorProto.INT32)
MOVES = ("Reshape", "Unsqueeze", "Squeeze", "Transpose", "Expand", "Slice")  # what is not about numbers
LOGIC = ("And", "Or", "Not")


def truths_of(
    graph: onnx.GraphProto, kinds: Mapping[str, int], constants: Mapping[str, onnx.TensorProto]
) -> frozenset[str]:
    """Values that come of masks alone, inputs of whole numbers, and end in choices between finite constants.

    Args:
        graph: whose nodes are in the order that they are run.
        kinds: of what numbers a value is, as in onnx.TensorProto.
        constants: initializers, and what Constant nodes hold.
    """
    if any(option.type in (option.GRAPH, option.GRAPHS) for node in graph.node for option in node.attribute):
        return frozenset()  # which may be read inside
    readers: Mapping[str, list[onnx.NodeProto]] = defaultdict(list)
    makers: dict[str, onnx.NodeProto] = {}
    masks = {value.name for value in graph.input if kinds.get(value.name) in WHOLE} - set(constants)
    for node in graph.node:
        for name in node.input:
            readers[name].append(node)
        if node.op_type in MOVES and node.input[0] in masks:
            masks.add(node.output[0])
        elif _makes(node, makers, masks, constants):
            makers[node.output[0]] = node
    kept, before = set(makers), -1
    kept -= {value.name for value in graph.output}
    while len(kept) != before:
        before = len(kept)
        kept -= {
            name
            for name in kept
            if any(given in makers and given not in kept for given in makers[name].input)
            or not all(reader.output[0] in kept or _chooses(reader, name, constants) for reader in readers[name])
        }
    return frozenset(kept)


def _makes(node: onnx.NodeProto, made: Mapping[str, object], masks: Set[str], constants: Mapping[str, object]) -> bool:
    """Whether a node makes a truth value of a mask, or of other truth values and constants."""
    if node.op_type == "Cast":
        to = next(option.i for option in node.attribute if option.name == "to")
        return to == TensorProto.BOOL and node.input[0] in masks
    if node.op_type in LOGIC:
        return any(name in made for name in node.input) and all(
            name in made or name in constants for name in node.input
        )
    return node.op_type in MOVES and node.input[0] in made


def _chooses(node: onnx.NodeProto, name: str, constants: Mapping[str, onnx.TensorProto]) -> bool:
    """Whether a node takes one of two finite constants by this truth value: zero times infinity is no zero."""
    if node.op_type != "Where" or node.input[0] != name:
        return False
    return all(_finite(constants.get(given)) for given in node.input[1:])


def _finite(tensor: onnx.TensorProto | None) -> bool:
    if tensor is None or tensor.data_type != TensorProto.FLOAT:
        return False
    return bool(np.isfinite(numpy_helper.to_array(tensor)).all())
