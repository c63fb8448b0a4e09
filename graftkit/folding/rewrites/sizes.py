"""What a list of sizes that a graph computes is made of: numbers, and sizes of other tensors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from graftkit.folding.surgeon import peek


@dataclass(frozen=True)
class Dim:
    """The size of a tensor's dimension, which nobody knows before it runs."""

    tensor: str
    at: int


def sizes_of(tensor: gs.Tensor) -> list[int | Dim] | None:
    """The numbers in a one-dimensional tensor of sizes, None where they come from something else."""
    if isinstance(tensor, gs.Constant):
        whole = tensor._values.nbytes <= 256 and np.issubdtype(tensor.dtype, np.integer)
        return [int(value) for value in peek(tensor).reshape(-1)] if whole else None
    if not tensor.inputs:
        return None
    node = tensor.inputs[0]
    match node.op:
        case "Shape":
            return _shape(node)
        case "Slice":
            return _slice(node)
        case "Reshape" | "Identity":
            return _row(node)
        case "Mul":
            return _product(node)
        case "Concat":
            parts = [sizes_of(part) for part in node.inputs]
            return None if None in parts else [size for part in parts for size in part or ()]
    return None


def dims_of(tensor: gs.Tensor) -> list[int | Dim] | None:
    """The sizes of a tensor, None where not even their number is known."""
    if tensor.shape is None:
        return None
    return [size if isinstance(size, int) else Dim(tensor.name, at) for at, size in enumerate(tensor.shape)]


def _shape(node: gs.Node) -> list[int | Dim] | None:
    dims = dims_of(node.inputs[0])
    return None if dims is None else dims[node.attrs.get("start", 0) : node.attrs.get("end", len(dims))]


def _slice(node: gs.Node) -> list[int | Dim] | None:
    source, *ends = (sizes_of(tensor) for tensor in node.inputs[:3])
    steps = sizes_of(node.inputs[4]) if len(node.inputs) > 4 else [1]
    if source is None or steps != [1] or not all(end is not None and len(end) == 1 for end in ends):
        return None
    first, last = (end[0] for end in ends if end)
    return source[first:last] if isinstance(first, int) and isinstance(last, int) else None


def _row(node: gs.Node) -> list[int | Dim] | None:
    """A row stays what it is in a reshape to a row."""
    return None if node.outputs[0].shape is None or len(node.outputs[0].shape) != 1 else sizes_of(node.inputs[0])


def _product(node: gs.Node) -> list[int | Dim] | None:
    """The product of two sizes, of which both are known or one is 1."""
    first, second = (sizes_of(tensor) for tensor in node.inputs)
    if first is None or second is None or not len(first) == len(second) == 1:
        return None
    (a,), (b,) = first, second
    if isinstance(a, int) and isinstance(b, int):
        return [a * b]
    return [b] if a == 1 else [a] if b == 1 else None
