"""Compares an evaluation graph with the module itself at sizes that it was not traced with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensor

from graftkit.calling import Calling, calling_of
from graftkit.core.errors import TraceError
from graftkit.core.signature import BATCH, Port
from graftkit.tracing.free import SizeError, resized
from graftkit.tracing.generators import seeded
from graftkit.tracing.guards import Sizes, breaking
from graftkit.tracing.quietly import quiet
from graftkit.tracing.reasons import reason

CHECKED_ROWS = (7, 16)
_MOST_NUMBERS = 2**24  # in inputs that a check makes


@dataclass(frozen=True)
class Traced:
    """What is compared: a module, how it is called, its evaluation graph, and its example inputs."""

    name: str
    module: nn.Module
    calling: Calling
    graph: fx.GraphModule
    inputs: tuple[Tensor, ...]
    ports: tuple[Port, ...]

    def at(self, numbers: Mapping[str, int]) -> tuple[Tensor, ...]:
        """The inputs with every dimension of these names brought to its number."""
        inputs: tuple[Tensor, ...] = self.inputs
        for size, number in numbers.items():
            inputs = resized(inputs, self.ports, size, number)
        return tuple(_lively(tensor) for tensor in inputs)


def _lively(tensor: Tensor) -> Tensor:
    """The tensor, with noise where it says the same everywhere: zeros would hide every difference."""
    if not tensor.is_floating_point() or tensor.numel() < 2 or bool((tensor != tensor.flatten()[0]).any()):
        return tensor
    generator = torch.Generator(tensor.device).manual_seed(0)
    noise = torch.randn(tensor.shape, generator=generator, device=tensor.device, dtype=tensor.dtype)
    return tensor + noise


def check_sizes(
    traced: Traced, limits: Mapping[str, tuple[int, int | None]], guards: Sequence[str] = ()
) -> tuple[frozenset[str], tuple[str, ...]]:
    """(sizes that are no more free, what a user has to know), from comparing at sizes that nothing was traced with.

    Tracing follows one branch of code that asks how large something is; the other would be lost without a word.

    Args:
        traced: what to compare.
        limits: the smallest and the largest number for which tracing vouches, by size.
        guards: what else tracing took for granted of sizes.

    Raises:
        TraceError: the graph is another function for another number of rows.
        SizeError: it is for another length, height or the like.
    """
    fixed, notes, free = set(), [], _free_sizes(traced)
    with _evaluating(traced.module):
        for numbers in broken_at(traced, guards):
            if set(numbers) == {BATCH}:
                _check_rows(traced, numbers[BATCH])
            else:
                _check_size(traced, numbers)
        for size, now in free.items():
            if size == BATCH:
                for rows in (*CHECKED_ROWS, *_beyond(limits.get(size), traced, now)):
                    _check_rows(traced, rows)
                if not _holds_for_one(traced, size):
                    notes.append("its code asks whether there is only one row, and the graph goes on as for more")
                continue
            others = dict.fromkeys((max(2, now // 2), now + 3, 2 * now, *_beyond(limits.get(size), traced, now)))
            if not [number for number in others if number != now and _check_size(traced, {size: number})]:
                fixed.add(size)  # the model itself takes no other
            elif not _holds_for_one(traced, size):
                notes.append(f"its code asks whether {size} is 1, and the graph goes on as for more")
    return frozenset(fixed), tuple(notes)


def broken_at(traced: Traced, guards: Sequence[str]) -> list[dict[str, int]]:
    """Sizes, as far as a check can afford them, at which tracing may have lost a branch of the code."""
    shapes = dict(zip(traced.calling.names, (port.shape for port in traced.ports), strict=True))
    found = breaking(guards, Sizes(shapes, _free_sizes(traced)), rows=BATCH)
    return [numbers for numbers in found if _numel(traced, numbers) < _MOST_NUMBERS]


def _numel(traced: Traced, numbers: Mapping[str, int]) -> int:
    """Of the inputs at some sizes."""
    known = {**_free_sizes(traced), **numbers}
    return sum(prod(known.get(d, 1) if isinstance(d, str) else d for d in port.shape) for port in traced.ports)


def _free_sizes(traced: Traced) -> dict[str, int]:
    """Each free size with its number in the example."""
    found: dict[str, int] = {}
    for tensor, port in zip(traced.inputs, traced.ports, strict=True):
        for dim, size in enumerate(port.shape):
            if isinstance(size, str) and size.isidentifier():
                found.setdefault(size, tensor.shape[dim])
    return found


def _beyond(limit: tuple[int, int | None] | None, traced: Traced, now: int) -> list[int]:
    """The numbers next to those for which tracing vouches, as far as a check can afford them."""
    lower, upper = limit or (2, None)
    beyond = [lower - 1] if lower > 2 else []
    beyond += [upper + 1] if upper is not None else []
    each = sum(tensor.numel() for tensor in traced.inputs) / max(now, 1)
    return [number for number in beyond if number * each < _MOST_NUMBERS]


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    modes = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for m, mode in modes:
            m.training = mode


def eager(module: nn.Module, calling: Calling, inputs: tuple[Tensor, ...]) -> Mapping[str, Tensor]:
    """What the module itself gives, by name."""
    with quiet(), torch.no_grad(), seeded():
        found = calling.run(module, tuple(x.clone() for x in inputs))  # some models write into what they are given
        return {name: tensor.detach() for name, tensor in found.tensors.items()}


def cannot_take(module: nn.Module, example: Any) -> str | None:
    """Why a module fails on an example in `eval()`, in a line; None if it does not."""
    with _evaluating(module):
        try:
            calling, inputs = calling_of(module, example)
            eager(module, calling, inputs)
        except Exception as error:  # whatever the user's own forward raises
            return str(error) if isinstance(error, TraceError) else reason(error)
    return None


def run_graph(graph: fx.GraphModule, inputs: tuple[Tensor, ...], *, seed: int = 0) -> tuple[Tensor, ...]:
    """What a graph gives, as a tuple."""
    with torch.no_grad(), seeded(seed):
        found = graph(*(x.clone() for x in inputs))
    return tuple(value.detach() for value in ((found,) if isinstance(found, Tensor) else found))


def _check_rows(traced: Traced, rows: int) -> None:
    inputs, name = traced.at({BATCH: rows}), traced.name
    try:
        expected = tuple(eager(traced.module, traced.calling, inputs).values())
    except Exception as error:  # whatever the model's own code raises
        raise TraceError(f"{name} was traced, but fails itself on {rows} rows: {reason(error)}") from error
    if any(isinstance(value, FakeTensor) for value in expected):
        raise TraceError(f"{name} keeps tensors that were made while it was traced; it cannot run any more")
    try:
        found = run_graph(traced.graph, inputs)
    except Exception as error:
        raise TraceError(f"{name} was traced, but its graph fails on {rows} rows: {reason(error)}") from error
    if not agree(expected, found):
        again = tuple(eager(traced.module, traced.calling, inputs).values())
        raise TraceError(
            f"{name}, traced, gives other outputs for {rows} rows than it does itself: "
            + (
                "its code asks how many rows there are"
                if agree(expected, again)
                else "in eval() it remembers what it was given before (a counter, an observer), which no graph does"
            )
        )


def _check_size(traced: Traced, numbers: Mapping[str, int]) -> bool:
    """Whether the model takes these sizes; raises SizeError where it does and the graph is another function."""
    inputs, name = traced.at(numbers), traced.name
    try:
        expected = tuple(eager(traced.module, traced.calling, inputs).values())
    except Exception:  # the model itself does not take this size, so nobody will give it
        return False
    where = " and ".join(f"{size} is {number}" for size, number in numbers.items())
    try:
        agrees = agree(expected, run_graph(traced.graph, inputs))
    except Exception as error:
        raise SizeError(f"{name}, traced, fails where {where}: {reason(error)}") from error
    if not agrees:
        raise SizeError(f"{name}, traced, gives other outputs than it does itself where {where}")
    return True


def _holds_for_one(traced: Traced, size: str) -> bool:
    """Whether the graph is right for a size of one, of which torch.export says nothing."""
    try:
        _check_size(traced, {size: 1})
    except SizeError:
        return False
    return True


def agree(expected: Sequence[Tensor], found: Sequence[Tensor]) -> bool:
    """Whether tensors are the same but for rounding."""
    return len(expected) == len(found) and all(
        ours.shape == theirs.shape and _close(ours, theirs) for ours, theirs in zip(expected, found, strict=True)
    )


def _close(ours: Tensor, theirs: Tensor) -> bool:
    if not ours.is_floating_point() and not ours.is_complex():
        return bool((ours != theirs).double().mean() <= 1e-3) if ours.numel() else True
    scale = float(torch.nan_to_num(ours.abs(), 0.0, 0.0, 0.0).max()) if ours.numel() else 0.0
    return torch.allclose(ours, theirs, rtol=1e-3, atol=1e-5 + 1e-4 * scale, equal_nan=True)
