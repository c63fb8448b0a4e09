"""Computes once what several nodes compute alike."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
import onnx_graphsurgeon as gs

from graftkit.folding.rewrites.tensors import forward, held, nodes_of
from graftkit.folding.surgeon import peek

_DRAWS = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial", "Dropout"}
)
_SMALL = 1024  # bytes; larger constants are alike where they are the same constant


def share_equal(graph: gs.Graph) -> int:
    """Of nodes with the same operator, settings and inputs the first is enough; random ones differ."""
    outputs, seen, shared = held(graph), dict[Hashable, gs.Node](), 0
    for node in nodes_of(graph):
        if node.op in _DRAWS or len(node.outputs) != 1 or node.outputs[0].name in outputs:
            continue
        key = _key(node)
        if key is None or key not in seen:
            seen[key] = node
            continue
        forward(outputs, node, seen[key].outputs[0])
        shared += 1
    return shared


def _key(node: gs.Node) -> Hashable | None:
    """None for a node with graphs inside it."""
    settings = []
    for name, value in sorted(node.attrs.items()):
        if isinstance(value, gs.Graph) or not isinstance(value, int | float | str | bytes | list | tuple):
            return None
        settings.append((name, repr(value)))  # which tells -0.0 from 0.0
    return node.op, node.domain, tuple(settings), tuple(_input(tensor) for tensor in node.inputs)


def _input(tensor: gs.Tensor) -> Hashable:
    if tensor.is_empty():
        return None
    if not isinstance(tensor, gs.Constant) or tensor._values.nbytes > _SMALL:
        return id(tensor)
    values = np.asarray(peek(tensor))
    return values.dtype.name, values.shape, values.tobytes()
