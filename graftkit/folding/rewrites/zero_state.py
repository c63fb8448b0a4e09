"""Takes away a recurrent layer's initial state where it is zero, which is what ONNX assumes anyway."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from graftkit.folding.rewrites.tensors import nodes_of
from graftkit.folding.surgeon import peek

_STATES = {"GRU": (5,), "RNN": (5,), "LSTM": (5, 6)}


def drop_zero_state(graph: gs.Graph) -> int:
    """GRU(x, ..., initial_h = zeros) becomes GRU(x, ...)."""
    dropped = 0
    for node in nodes_of(graph, *_STATES):
        for position in _STATES[node.op]:
            if len(node.inputs) > position and _is_zeros(node.inputs[position]):
                node.inputs[position] = gs.Variable.empty()
                dropped += 1
    return dropped


def _is_zeros(tensor: gs.Tensor) -> bool:
    if isinstance(tensor, gs.Constant):
        return not np.any(peek(tensor))
    if not tensor.inputs:
        return False
    node = tensor.inputs[0]
    if node.op in ("Expand", "Slice", "Reshape", "Unsqueeze", "Squeeze", "Transpose", "Identity", "Concat"):
        data = node.inputs if node.op == "Concat" else node.inputs[:1]
        return all(_is_zeros(t) for t in data)
    return node.op == "ConstantOfShape" and not np.any(peek(node.attrs["value"]) if "value" in node.attrs else 0)
