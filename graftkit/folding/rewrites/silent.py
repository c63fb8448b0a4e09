"""Takes out what adds nothing: a branch whose strengths are all zero."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs


def drop_silent(graph: gs.Graph) -> int:
    """X + 0 * y becomes x; what only y needed goes with the clean-up that follows."""
    dropped = 0
    for add in [node for node in graph.nodes if node.op == "Add"]:
        for position, tensor in enumerate(add.inputs):
            if _is_zero(tensor) and add.inputs[1 - position].shape == add.outputs[0].shape:
                forward(graph, add, add.inputs[1 - position])
                dropped += 1
                break
    return dropped


def forward(graph: gs.Graph, node: gs.Node, source: gs.Tensor) -> None:
    """Let everything that reads the node's only output read `source` instead, and detach the node."""
    result = node.outputs[0]
    for reader in list(result.outputs):
        for position, tensor in enumerate(reader.inputs):
            if tensor is result:
                reader.inputs[position] = source
    if result in graph.outputs:
        producer = source.inputs[0]
        producer.outputs[producer.outputs.index(source)] = result
        for reader in list(source.outputs):
            for position, tensor in enumerate(reader.inputs):
                if tensor is source:
                    reader.inputs[position] = result
    node.inputs.clear()
    node.outputs.clear()


def _is_zero(tensor: gs.Tensor) -> bool:
    if not tensor.inputs or tensor.inputs[0].op != "Mul":
        return False
    return any(isinstance(t, gs.Constant) and not np.any(t.values) for t in tensor.inputs[0].inputs)
