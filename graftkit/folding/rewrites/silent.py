"""Takes out what adds nothing: a branch whose strengths are all zero."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from graftkit.folding.rewrites.tensors import forward, held, nodes_of, replaceable, same_shape
from graftkit.folding.surgeon import peek


def drop_silent(graph: gs.Graph) -> int:
    """X + 0 * y becomes x; what only y needed goes with the clean-up that follows."""
    outputs = held(graph)
    dropped = 0
    for add in nodes_of(graph, "Add"):
        for position, tensor in enumerate(add.inputs):
            source = add.inputs[1 - position]
            if _is_zero(tensor) and same_shape(source, add.outputs[0]) and replaceable(outputs, add, source):
                forward(outputs, add, source)
                dropped += 1
                break
    return dropped


def _is_zero(tensor: gs.Tensor) -> bool:
    if not tensor.inputs or tensor.inputs[0].op != "Mul":
        return False
    return any(isinstance(t, gs.Constant) and not np.any(peek(t)) for t in tensor.inputs[0].inputs)
