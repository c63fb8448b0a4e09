"""Lets a mean drop the axes that a reshape behind it drops."""

from __future__ import annotations

from collections.abc import Sequence, Set

import onnx_graphsurgeon as gs

from graftkit.folding.rewrites.channels import mean_axes
from graftkit.folding.rewrites.sizes import Dim, dims_of, sizes_of
from graftkit.folding.rewrites.tensors import held, nodes_of


def flatten_mean(graph: gs.Graph) -> int:
    """Reshape(ReduceMean(x, keepdims=1)) becomes ReduceMean(x, keepdims=0), in front of a classifier's head."""
    outputs, flattened = held(graph), 0
    for node in nodes_of(graph, "Flatten", "Reshape", "Squeeze"):
        mean = _mean(node, outputs)
        if mean is None or not _drops(node, mean):
            continue
        mean.attrs["keepdims"] = 0
        mean.outputs[0] = node.outputs[0]
        node.inputs.clear()
        node.outputs.clear()
        flattened += 1
    return flattened


def _mean(node: gs.Node, outputs: Set[str]) -> gs.Node | None:
    """The mean that this node alone reads, if its axes are known."""
    given = node.inputs[0]
    made = given.inputs[0] if given.inputs else None
    if made is None or made.op != "ReduceMean" or not made.attrs.get("keepdims", 1):
        return None
    return made if len(given.outputs) == 1 and given.name not in outputs and _axes(made) else None


def _axes(mean: gs.Node) -> list[int]:
    """Its axes, counted from the front; none where they are not known."""
    dims, axes = dims_of(mean.outputs[0]), mean_axes(mean)
    return [] if dims is None or axes is None else [axis % len(dims) for axis in axes]


def _drops(node: gs.Node, mean: gs.Node) -> bool:
    """Whether the node leaves all axes but those of the mean, in their order."""
    dims, axes = dims_of(node.inputs[0]), _axes(mean)
    if dims is None or any(dims[axis] != 1 for axis in axes):
        return False
    left = [size for axis, size in enumerate(dims) if axis not in axes]
    match node.op:
        case "Flatten":
            return node.attrs.get("axis", 1) == 1 and len(left) == 2 and 0 not in axes and 1 not in axes
        case "Squeeze":
            given = sizes_of(node.inputs[1]) if len(node.inputs) > 1 else None
            return given is not None and sorted(_from_front(given, len(dims))) == sorted(axes)
    return _same(sizes_of(node.inputs[1]), left, dims, allows_zero=bool(node.attrs.get("allowzero", 0)))


def _from_front(axes: Sequence[int | Dim], dims: int) -> list[int]:
    return [axis % dims for axis in axes if isinstance(axis, int)]


def _same(
    sizes: Sequence[int | Dim] | None, left: Sequence[int | Dim], dims: Sequence[int | Dim], *, allows_zero: bool
) -> bool:
    """Whether a reshape to these sizes gives those that are left; -1 is what the others leave, 0 a copy."""
    if sizes is None or len(sizes) != len(left):
        return False
    wanted = [dims[at] if size == 0 and not allows_zero else size for at, size in enumerate(sizes)]
    other = [(size, own) for size, own in zip(wanted, left, strict=True) if size != own]
    return not other or (len(other) == 1 and other[0][0] == -1)
