"""Frees a batch size that an exporter fixed, and keeps it fixed where rows would then not stay apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx

from graftkit.core.signature import Port, Signature
from graftkit.sources.onnx_operators import OPERATORS, Call
from graftkit.sources.onnx_operators.numbers import Numbers, numbers
from graftkit.sources.onnx_trial import as_tuple, example, fits

FREED = "the file fixes its batch size to {rows}; it was freed here, and rows taken together give what each gives alone"
KEPT = "the file fixes its batch size to {rows}, and rows do not stay apart when it is freed; export it with a free one"
_MOST_NUMBERS = 2**26  # in one input of it
_CLOSE = 1e-4


def free_batch(module: fx.GraphModule, signature: Signature) -> tuple[Signature, tuple[str, ...]]:
    """Let the module take any number of rows, if it can; the signature that it has then, and what to tell the user.

    Only a file whose inputs all have the same number as their first size is changed.
    """
    rows = {port.shape[0] if port.shape else None for port in signature.inputs}
    fixed = rows.pop() if len(rows) == 1 else None
    if not isinstance(fixed, int):
        return signature, ()
    sizes = [[size for size in port.shape if isinstance(size, int)] for port in signature.inputs]
    if max(map(math.prod, sizes)) > _MOST_NUMBERS:
        return signature, (KEPT.format(rows=fixed),)
    before = _loosen(module, fixed, signature)
    if before is not None and _rows_stay_apart(module, fixed, signature):
        freed = Signature(
            tuple(_freed(port, fixed) for port in signature.inputs),
            tuple(_freed(port, fixed) for port in signature.outputs),
            signature.output,
        )
        return freed, (FREED.format(rows=fixed),)
    for call, origins in (before or {}).items():
        call.origins = origins
    return signature, (KEPT.format(rows=fixed),)


def _loosen(module: fx.GraphModule, rows: int, signature: Signature) -> dict[Call, tuple[Any, ...]] | None:
    """Let reshapes follow twice the rows; what they had before, or None where the module cannot be tried."""
    calls = [call for call in module.modules() if isinstance(call, Call) and _wanted(call) is not None]
    sizes: dict[Call, tuple[int, ...]] = {}
    before: dict[Call, tuple[Any, ...]] = {}

    def note(call: Call, given: tuple[Any, ...]) -> None:
        if isinstance(given[0], Tensor):
            sizes[call] = tuple(given[0].shape)

    def follow(call: Call, given: tuple[Any, ...]) -> None:
        wanted, was = _wanted(call), sizes.get(call)
        if wanted is not None and was is not None and was != (now := tuple(given[0].shape)):
            before[call] = call.origins
            call.origins = (call.origins[0], numbers(_following(wanted, was, now)))

    for watch, count in ((note, rows), (follow, 2 * rows)):
        with ExitStack() as stack:
            for call in calls:
                stack.callback(call.register_forward_pre_hook(watch).remove)
            if not fits(module, [example(port, count, 0) for port in signature.inputs]):
                return before if before else None
    return before


def _wanted(call: Call) -> list[int] | None:
    """The sizes that a reshape has as a constant; None for other operators, and where one is left open."""
    wanted = call.origins[1] if call.operator is OPERATORS["Reshape"] and len(call.origins) > 1 else None
    if call.origins[:1] != (0,) or not isinstance(wanted, Numbers) or not wanted.plain or -1 in wanted.flat()[:1]:
        return None
    return wanted.flat()


def _following(wanted: Sequence[int], was: Sequence[int], now: Sequence[int]) -> list[int]:
    """The sizes with that one left open into which the batch goes.

    The batch is the one size of the input that grew; in memory it comes behind all sizes before it, so in the result
    it is, or is part of, the size that comes behind as many numbers.
    """
    grown = next(axis for axis, pair in enumerate(zip(was, now, strict=True)) if pair[0] != pair[1])
    sizes = [was[axis] if size == 0 else size for axis, size in enumerate(wanted)]
    there = [axis for axis in range(len(sizes)) if math.prod(sizes[:axis]) == math.prod(was[:grown])]
    axis = next((axis for axis in there if sizes[axis] == was[grown]), there[0] if there else None)
    found = list(wanted)
    if axis is not None and -1 not in wanted:
        found[axis] = -1
    elif axis is not None and axis == grown and sizes[axis] == was[axis]:
        found[axis] = 0
    return found


def _rows_stay_apart(module: fx.GraphModule, rows: int, signature: Signature) -> bool:
    """Whether two batches together give what each gives alone."""
    first, second = ([example(port, rows, seed) for port in signature.inputs] for seed in (1, 2))
    both = [torch.cat([a, b]) for a, b in zip(first, second, strict=True)]
    if not fits(module, both):
        return False
    try:
        with torch.no_grad():
            alone, together = [as_tuple(module(*given)) for given in (first, second)], as_tuple(module(*both))
    except Exception:  # what the file does with a batch that it never meant
        return False
    return all(_same(torch.cat(parts), whole) for *parts, whole in zip(*alone, together, strict=True) if parts[0].ndim)


def _same(apart: Tensor, together: Tensor) -> bool:
    if apart.shape != together.shape:
        return False
    a, b = apart.double(), together.double()
    scale = float(a.abs().max()) if a.numel() else 0.0
    return bool(((a - b).abs() <= _CLOSE * max(scale, 1e-3)).all())


def _freed(port: Port, rows: int) -> Port:
    fixed = port.shape and port.shape[0] == rows
    return replace(port, shape=("batch", *port.shape[1:])) if fixed else port
