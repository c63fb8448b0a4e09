"""Applies to constant tensors what only changes how they are seen: exporters leave weights transposed or reshaped."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from onnx import NodeProto
from torch import Tensor

from graftkit.sources.onnx_normalise.graph import Graph, attribute_of
from graftkit.sources.onnx_tensors import DTYPES

_MOST_NUMBERS = 12  # in a shape or a list of axes


def fold_views(graph: Graph) -> None:
    """A transposed, reshaped, squeezed or converted tensor becomes a tensor, in the same memory if it can."""
    kept = []
    for node in graph.nodes:
        found = _folded(node, graph) if node.op_type in _VIEWS else None
        if found is None or node.output[0] in graph.outputs:
            kept.append(node)
        else:
            graph.tensors.put(node.output[0], found)
    graph.nodes[:] = kept


def _folded(node: NodeProto, graph: Graph) -> Tensor | None:
    names = [name for name in node.input if name]
    if not names or not all(name in graph.tensors for name in names):
        return None
    rest = [graph.tensors[name] for name in names[1:]]
    if any(tensor.numel() > _MOST_NUMBERS for tensor in rest):
        return None
    numbers = [int(value) for tensor in rest for value in tensor.reshape(-1)]
    told = b" ".join(attribute.SerializeToString() for attribute in node.attribute)
    try:
        return graph.tensors.once(
            f"{node.op_type} {told!r} {numbers}", names[0], lambda data: _VIEWS[node.op_type](node, data, numbers)
        )
    except (RuntimeError, IndexError, KeyError, ValueError):  # whatever is wrong with it is told when it is built
        return None


def _transposed(node: NodeProto, data: Tensor, numbers: Sequence[int]) -> Tensor:
    order = attribute_of(node, "perm")
    return data.permute(*(order.ints if order is not None else range(data.ndim - 1, -1, -1)))


def _reshaped(node: NodeProto, data: Tensor, numbers: Sequence[int]) -> Tensor:
    zeros = attribute_of(node, "allowzero")
    copied = zeros is None or not zeros.i
    return data.reshape([data.shape[i] if size == 0 and copied else size for i, size in enumerate(numbers)])


def _axes(node: NodeProto, numbers: Sequence[int]) -> list[int]:
    given = attribute_of(node, "axes")
    return list(given.ints) if given is not None else list(numbers)


def _squeezed(node: NodeProto, data: Tensor, numbers: Sequence[int]) -> Tensor:
    axes = _axes(node, numbers)
    return data.squeeze(axes) if axes else data.squeeze()


def _unsqueezed(node: NodeProto, data: Tensor, numbers: Sequence[int]) -> Tensor:
    axes = _axes(node, numbers)
    rank = data.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        data = data.unsqueeze(axis)
    return data


def _converted(node: NodeProto, data: Tensor, numbers: Sequence[int]) -> Tensor:
    to = attribute_of(node, "to")
    return data.to(DTYPES[to.i if to is not None else 0])


_VIEWS: Mapping[str, Callable[[NodeProto, Tensor, Sequence[int]], Tensor]] = {
    "Transpose": _transposed,
    "Reshape": _reshaped,
    "Squeeze": _squeezed,
    "Unsqueeze": _unsqueezed,
    "Cast": _converted,
}
