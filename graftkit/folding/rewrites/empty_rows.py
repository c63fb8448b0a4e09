"""Takes out what guards a softmax against rows in which everything is masked, where no row can be."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from graftkit.folding.rewrites.tensors import forward, held, nodes_of, rank, replaceable
from graftkit.folding.surgeon import peek

_COMPUTED = frozenset({"Conv", "Gemm", "LayerNormalization", "MatMul", "Sigmoid", "Tanh"})
_MOVED = frozenset({"Concat", "Expand", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"})
_HUGE = 1e30  # of two such numbers the sum may be infinite
_DEEP = 10  # nodes from a mask to where it is added, at most


def drop_empty_rows(graph: gs.Graph) -> int:
    """Where(IsNaN(softmax(x)), 0, softmax(x)) becomes softmax(x) where each row of x has a number.

    The exporter writes the guard wherever attention has a mask. A mask of minus infinities is one that is constant and
    leaves something in each row; of others all entries have to be finite. MNN has no IsNaN.
    """
    outputs, dropped = held(graph), 0
    for where in nodes_of(graph, "Where"):
        softmax = _guarded(where)
        if softmax is None or not _has_numbers(softmax) or not replaceable(outputs, where, softmax.outputs[0]):
            continue
        forward(outputs, where, softmax.outputs[0])
        dropped += 1
    return dropped


def _guarded(where: gs.Node) -> gs.Node | None:
    """The softmax that a Where passes on but for what is not a number, for which it has zeros."""
    asks, zero, source = where.inputs
    known = isinstance(zero, gs.Constant) and zero._values.nbytes <= 8 and not np.any(peek(zero))
    if not known or not asks.inputs or asks.inputs[0].op != "IsNaN" or not source.inputs:
        return None
    found = source.inputs[0]
    return found if asks.inputs[0].inputs[0] is source and found.op == "Softmax" else None


def _has_numbers(softmax: gs.Node) -> bool:
    """Whether it is known that no row is minus infinity throughout."""
    given = softmax.inputs[0]
    if _size(given) is not None:
        return True
    made = given.inputs[0] if given.inputs else None
    if made is None or made.op != "Add" or softmax.attrs.get("axis", -1) not in (-1, (rank(given) or 0) - 1):
        return False
    first, second = made.inputs
    return any(_size(a) == 0 and _leaves_some(b) for a, b in ((first, second), (second, first)))


def _leaves_some(mask: gs.Tensor) -> bool:
    """Whether each row of a constant has a number, and what is none is minus infinity."""
    if not isinstance(mask, gs.Constant) or not mask.shape:
        return False
    numbers = peek(mask)
    ordinary = np.abs(numbers) < _HUGE
    return bool(np.all(ordinary | np.isneginf(numbers)) and np.all(ordinary.any(axis=-1)))


def _size(tensor: gs.Tensor, deep: int = _DEEP) -> int | None:
    """0 for ordinary numbers, 1 for such as may be huge, None where some may be infinite.

    What a layer computes counts as ordinary.
    """
    if isinstance(tensor, gs.Constant):
        numbers = peek(tensor)
        return int(np.any(np.abs(numbers) >= _HUGE)) if np.all(np.isfinite(numbers)) else None
    made = tensor.inputs[0] if tensor.inputs else None
    if made is None or not deep:
        return None
    if made.op in _COMPUTED:
        return 0
    return _combined(made, deep - 1)


def _combined(made: gs.Node, deep: int) -> int | None:
    given = made.inputs[1:] if made.op == "Where" else made.inputs
    if made.op in _MOVED and made.op != "Concat":
        return _size(given[0], deep)
    if made.op not in ("Add", "Concat", "Div", "Mul", "Sub", "Where"):
        return None
    sizes = [size for tensor in given if (size := _size(tensor, deep)) is not None]
    if len(sizes) < len(given):
        return None
    if made.op in ("Concat", "Where"):
        return max(sizes)
    return _calculated(made, sizes)


def _calculated(made: gs.Node, sizes: list[int]) -> int | None:
    """A sum of at most one huge number; a product, or quotient by a constant, of ordinary ones."""
    if made.op in ("Add", "Sub"):
        return sum(sizes) if sum(sizes) < 2 else None
    divisor = made.inputs[1]
    divides = made.op == "Div" and not (isinstance(divisor, gs.Constant) and np.all(np.abs(peek(divisor)) > 1e-6))
    return None if sum(sizes) or divides else 0
