"""Takes out nodes that do nothing."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from graftkit.folding.rewrites.tensors import forward, held, nodes_of, replaceable, same_shape
from graftkit.folding.surgeon import peek


def drop_idle(graph: gs.Graph) -> int:
    """Identity, inference Dropout, Cast to the same type, x * 1, x + 0, and Transpose that keeps the order."""
    outputs = held(graph)
    dropped = 0
    for node in nodes_of(graph):
        source = _passes_through(node)
        if source is None or len(node.outputs) != 1 or not replaceable(outputs, node, source):
            continue
        forward(outputs, node, source)
        dropped += 1
    return dropped


def _passes_through(node: gs.Node) -> gs.Tensor | None:
    match node.op:
        case "Identity":
            return node.inputs[0]
        case "Dropout":
            return None if _is_training(node) else node.inputs[0]
        case "Cast":
            same = node.inputs[0].dtype is not None and node.inputs[0].dtype == node.outputs[0].dtype
            return node.inputs[0] if same else None
        case "Transpose":
            order = list(node.attrs.get("perm", ()))
            return node.inputs[0] if order and order == list(range(len(order))) else None
        case "Mul" | "Add":
            return _unchanged(node, neutral=1 if node.op == "Mul" else 0)
    return None


def _unchanged(node: gs.Node, *, neutral: int) -> gs.Tensor | None:
    for position, tensor in enumerate(node.inputs):
        other = node.inputs[1 - position]
        if isinstance(tensor, gs.Constant) and same_shape(other, node.outputs[0]) and np.all(peek(tensor) == neutral):
            return other
    return None


def _is_training(node: gs.Node) -> bool:
    """Whether a Dropout is told, or may be told, to drop."""
    mode = node.inputs[2] if len(node.inputs) > 2 else None
    if mode is None or mode.is_empty():
        return False
    return not isinstance(mode, gs.Constant) or bool(np.any(peek(mode)))
