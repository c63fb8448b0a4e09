"""Lets a mask be where it is, instead of fetching each of its numbers from its own place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from graftkit.folding.rewrites.sizes import Dim, sizes_of
from graftkit.folding.rewrites.tensors import fresh, nodes_of, rank
from graftkit.folding.surgeon import peek

_MOST = 1 << 16  # numbers of a constant that are looked at


@dataclass(frozen=True)
class _Count:
    """The numbers 0, 1, 2, … along one axis; along all others they are the same."""

    axis: int
    size: int | str


def keep_places(graph: gs.Graph) -> int:
    """GatherND(x, places) becomes Unsqueeze(x, axes) where the places along each axis of x are all there are, in order.

    transformers looks masks up so, by the number of the row and that of the token: a dozen nodes, of operators that
    small runtimes do not have.
    """
    kept = 0
    for node in nodes_of(graph, "GatherND"):
        axes = _axes(graph, node)
        if axes is None:
            continue
        given = gs.Constant(fresh(graph, f"{node.outputs[0].name}_axes"), np.array(axes, np.int64))
        node.op, node.attrs, node.inputs = "Unsqueeze", {}, [node.inputs[0], given]
        kept += 1
    return kept


def _axes(graph: gs.Graph, node: gs.Node) -> list[int] | None:
    """The axes that the result has and the source has not; None where it is another thing."""
    source, places = node.inputs
    parts = places.inputs[0].inputs if places.inputs and places.inputs[0].op == "Concat" else []
    shape, left = source.shape, node.outputs[0].shape
    if node.attrs.get("batch_dims", 0) or shape is None or left is None or len(parts) != len(shape):
        return None
    counts = [_last(graph, part) for part in parts]
    found = [count.axis for count in counts if count is not None]
    if len(found) != len(parts) or found != sorted(set(found)):
        return None
    wanted: list[int | str] = [1] * len(left)
    for count, size in zip(counts, shape, strict=True):
        if count is None or size is None or count.size != size:
            return None
        wanted[count.axis] = size
    return [axis for axis in range(len(left)) if axis not in found] if wanted == list(left) else None


def _last(graph: gs.Graph, part: gs.Tensor) -> _Count | None:
    """What is counted along one axis of the source: a part of the last axis of the places."""
    node = part.inputs[0] if part.inputs else None
    if node is None or node.op != "Unsqueeze" or sizes_of(node.inputs[1]) not in ([-1], [rank(node.inputs[0])]):
        return None
    return _count(graph, node.inputs[0])


def _count(graph: gs.Graph, tensor: gs.Tensor) -> _Count | None:
    if isinstance(tensor, gs.Constant):
        return _constant(tensor)
    node = tensor.inputs[0] if tensor.inputs else None
    if node is None:
        return None
    match node.op:
        case "Range":
            first, limit, step = node.inputs
            size = _size(graph, limit) if (_number(first), _number(step)) == (0, 1) else None
            return None if size is None else _Count(0, size)
        case "Expand":
            same = rank(tensor) is not None and rank(tensor) == rank(node.inputs[0])
            return _count(graph, node.inputs[0]) if same else None
        case "Unsqueeze":
            return _moved(_count(graph, node.inputs[0]), sizes_of(node.inputs[1]), rank(tensor))
    return None


def _constant(tensor: gs.Constant) -> _Count | None:
    """A size of one says nothing of the axis."""
    long = [axis for axis, size in enumerate(tensor.shape) if size != 1]
    if len(long) != 1 or tensor.shape[long[0]] > _MOST:
        return None
    size = tensor.shape[long[0]]
    return _Count(long[0], size) if np.array_equal(peek(tensor).reshape(-1), np.arange(size)) else None


def _moved(count: _Count | None, axes: Sequence[int | Dim] | None, dims: int | None) -> _Count | None:
    """A count in front of whose axis others come."""
    if count is None or axes is None or dims is None:
        return None
    new = {axis % dims for axis in axes if isinstance(axis, int)}
    old = [axis for axis in range(dims) if axis not in new]
    return _Count(old[count.axis], count.size) if len(new) == len(axes) and count.axis < len(old) else None


def _number(tensor: gs.Tensor) -> int | None:
    sizes = sizes_of(tensor) if isinstance(tensor, gs.Constant) else None
    return sizes[0] if sizes is not None and len(sizes) == 1 and isinstance(sizes[0], int) else None


def _size(graph: gs.Graph, limit: gs.Tensor) -> int | str | None:
    """A number, or the name of a free size."""
    node = limit.inputs[0] if limit.inputs else None
    sizes = sizes_of(node.inputs[0] if node is not None and node.op == "Squeeze" else limit)
    if sizes is None or len(sizes) != 1:
        return None
    (size,) = sizes
    if isinstance(size, int):
        return size
    name = graph.tensors()[size.tensor].shape[size.at]
    return name if isinstance(name, str) and name else None
