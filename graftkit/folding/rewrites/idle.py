"""Takes out nodes that do nothing."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from graftkit.folding.rewrites.silent import forward, replaceable, same_shape


def drop_idle(graph: gs.Graph) -> int:
    """Identity, inference Dropout, Cast to the same type, x * 1, x + 0, and Transpose that keeps the order."""
    dropped = 0
    for node in list(graph.nodes):
        source = _passes_through(node)
        if source is None or len(node.outputs) != 1 or not replaceable(graph, node, source):
            continue
        forward(graph, node, source)
        dropped += 1
    return dropped


def _passes_through(node: gs.Node) -> gs.Tensor | None:
    if node.op in ("Identity", "Dropout"):
        return node.inputs[0]
    if node.op == "Cast" and node.inputs[0].dtype is not None and node.inputs[0].dtype == node.outputs[0].dtype:
        return node.inputs[0]
    if node.op == "Transpose" and list(node.attrs.get("perm", ())) == list(range(len(node.attrs.get("perm", ())))):
        return node.inputs[0] if node.attrs.get("perm") else None
    neutral = {"Mul": 1, "Add": 0}.get(node.op)
    if neutral is None:
        return None
    for position, tensor in enumerate(node.inputs):
        other = node.inputs[1 - position]
        if isinstance(tensor, gs.Constant) and np.all(tensor.values == neutral) and same_shape(other, node.outputs[0]):
            return other
    return None
