"""What the rewrites ask of tensors, and how one takes another's place."""

from __future__ import annotations

from collections.abc import Set
from math import prod

import numpy as np
import onnx_graphsurgeon as gs
from onnx import helper


def nodes_of(graph: gs.Graph, *operators: str) -> list[gs.Node]:
    """The nodes that do something, of these operators; one that was taken out stays in the list till the clean-up."""
    return [node for node in graph.nodes if node.outputs and (not operators or node.op in operators)]


def held(graph: gs.Graph) -> frozenset[str]:
    """The names of what the graph gives, and the graphs inside it: such a tensor has to stay, under its name."""
    inner = graph.subgraphs(recursive=True)
    return frozenset(tensor.name for each in (graph, *inner) for tensor in each.outputs)


def fresh(graph: gs.Graph, name: str) -> str:
    """This name, with as many underscores behind it as no tensor of the graph, nor of graphs inside it, has."""
    taken = {found for each in (graph, *graph.subgraphs(recursive=True)) for found in each.tensors()}
    while name in taken:
        name += "_"
    return name


def rank(tensor: gs.Tensor) -> int | None:
    """How many dimensions a tensor has, None where that is not known."""
    return None if tensor.shape is None else len(tensor.shape)


def same_shape(first: gs.Tensor, second: gs.Tensor) -> bool:
    """Whether two tensors are known to have one shape."""
    if first.shape is None or second.shape is None or None in (*first.shape, *second.shape):
        return False
    return tuple(first.shape) == tuple(second.shape)


def nbytes(tensor: gs.Tensor) -> int | None:
    """Bytes of a tensor's numbers, None where its size is not known."""
    if tensor.shape is None or tensor.dtype is None or not all(isinstance(size, int) for size in tensor.shape):
        return None
    dtype = helper.tensor_dtype_to_np_dtype(tensor.dtype) if isinstance(tensor.dtype, int) else tensor.dtype
    return int(prod(tensor.shape)) * np.dtype(dtype).itemsize


def replaceable(outputs: Set[str], node: gs.Node, source: gs.Tensor) -> bool:
    """Whether `source` can stand for the node's only output: what is held needs a node that makes it."""
    if node.outputs[0].name not in outputs:
        return True
    return len(source.inputs) == 1 and source.name not in outputs


def forward(outputs: Set[str], node: gs.Node, source: gs.Tensor) -> None:
    """Let everything that reads the node's only output read `source` instead, and detach the node."""
    result = node.outputs[0]
    _read_instead(result, source)
    if result.name in outputs:
        producer = source.inputs[0]
        producer.outputs[producer.outputs.index(source)] = result
        _read_instead(source, result)
    node.inputs.clear()
    node.outputs.clear()


def _read_instead(old: gs.Tensor, new: gs.Tensor) -> None:
    for reader in list(old.outputs):  # of graphs inside this one, too
        for position, tensor in enumerate(reader.inputs):
            if tensor is old:
                reader.inputs[position] = new
