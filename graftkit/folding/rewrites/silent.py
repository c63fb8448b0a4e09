"""Takes out what adds nothing: a branch whose strengths are all zero."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs


def drop_silent(graph: gs.Graph) -> int:
    """X + 0 * y becomes x; what only y needed goes with the clean-up that follows."""
    dropped = 0
    for add in [node for node in graph.nodes if node.op == "Add"]:
        for position, tensor in enumerate(add.inputs):
            source = add.inputs[1 - position]
            if _is_zero(tensor) and same_shape(source, add.outputs[0]) and replaceable(graph, add, source):
                forward(graph, add, source)
                dropped += 1
                break
    return dropped


def same_shape(first: gs.Tensor, second: gs.Tensor) -> bool:
    """Whether two tensors are known to have one shape."""
    return first.shape is not None and first.shape == second.shape


def is_output(graph: gs.Graph, tensor: gs.Tensor) -> bool:
    """Whether the graph gives this very tensor."""
    return any(output is tensor for output in graph.outputs)


def replaceable(graph: gs.Graph, node: gs.Node, source: gs.Tensor) -> bool:
    """Whether `source` can stand for the node's only output: an output of the graph needs a node that makes it."""
    if not is_output(graph, node.outputs[0]):
        return True
    return bool(source.inputs) and not is_output(graph, source)


def forward(graph: gs.Graph, node: gs.Node, source: gs.Tensor) -> None:
    """Let everything that reads the node's only output read `source` instead, and detach the node."""
    result = node.outputs[0]
    for reader in list(result.outputs):
        for position, tensor in enumerate(reader.inputs):
            if tensor is result:
                reader.inputs[position] = source
    if is_output(graph, result):
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
