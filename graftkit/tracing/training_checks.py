"""Compares a training graph with the module itself: outputs, buffers, and what no graph can repeat."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from graftkit.core.errors import TraceError
from graftkit.core.signature import BATCH
from graftkit.tracing.capture import buffers_kept, prepared
from graftkit.tracing.checks import Traced, agree, broken_at
from graftkit.tracing.generators import seeded
from graftkit.tracing.quietly import quiet
from graftkit.tracing.reasons import reason

_OTHER_ROWS = (7, 16)  # an odd number, which a norm over parts of the batch may not take, and an even one
_OTHER_SEEDS = (1, 2, 3)  # of Python and numpy: a branch that is drawn may fall the same way once


@dataclass(frozen=True, eq=False)
class _Pass:
    """What one pass in training gave, and the buffers it moved, by name."""

    outputs: tuple[Tensor, ...]
    moved: Mapping[str, Tensor]


def check_training(traced: Traced, guards: Sequence[str]) -> tuple[str, ...]:
    """What a user has to know of a training graph that is not quite the module, in lines.

    Args:
        traced: the module and its training graph.
        guards: what tracing took for granted of sizes in training.

    Raises:
        TraceError: the graph is another function than the module.
    """
    try:
        first = _of_module(traced, traced.inputs)
    except Exception:  # the model's own code; it may still run in evaluation, and the probe says that it does not train
        return ()
    hooks = _hooks(traced)
    notes = (*_drawn_elsewhere(traced, first), *_remembered(traced, first))
    if notes:
        return (*hooks, *notes)
    graph = _of_graph(traced, traced.inputs)
    same = _same(first, graph)
    if same or _same(first, _of_module(traced, traced.inputs, seed=1)):  # else it draws, and in another order
        for numbers in ({}, *({BATCH: rows} for rows in _OTHER_ROWS), *broken_at(traced, guards)):
            _compare(traced, numbers)
    return (*hooks, *_left_behind(first, graph))


def left_behind(traced: Traced) -> tuple[str, ...]:
    """That buffers stay which the module moves in training, where they do; for a graph made by flipping flags."""
    try:
        return _left_behind(_of_module(traced, traced.inputs), _of_graph(traced, traced.inputs))
    except Exception:  # the module's own code in training, or a flipped graph that cannot run: the probe says so
        return ()


def _compare(traced: Traced, numbers: Mapping[str, int]) -> None:
    """Raise TraceError where the graph gives, or leaves in its buffers, something else at these sizes."""
    inputs = traced.at(numbers)
    try:
        expected = _of_module(traced, inputs)
    except Exception:  # the model itself takes no such sizes
        return
    where = "".join(f", where {size} is {number}" for size, number in numbers.items())
    try:
        found = _of_graph(traced, inputs)
    except Exception as error:
        raise TraceError(f"{traced.name}, traced in training, fails{where}: {reason(error)}") from error
    if not _same(expected, found):
        raise TraceError(f"{traced.name}, traced in training, gives other outputs than it does itself{where}")


def _hooks(traced: Traced) -> tuple[str, ...]:
    """Hooks on gradients; those of parameters hang on the very tensors that are trained, and stay."""
    parts = traced.module.named_modules()
    places = [path or traced.name for path, part in parts if part._backward_hooks or part._backward_pre_hooks]
    plain = Tensor.register_hook

    def register(tensor: Tensor, hook: Callable[..., Any]) -> Any:
        if not tensor.is_leaf:
            places.append("what forward() registers")
        return plain(tensor, hook)  # type: ignore[no-untyped-call]

    with mock.patch.object(Tensor, "register_hook", register):
        _of_module(traced, traced.inputs)
    places = list(dict.fromkeys(places))
    return (f"hooks on gradients are no part of the graph: {', '.join(places[:3])}",) if places else ()


def _drawn_elsewhere(traced: Traced, first: _Pass) -> tuple[str, ...]:
    if all(_same(first, _of_module(traced, traced.inputs, others=seed)) for seed in _OTHER_SEEDS):
        return ()
    return ("in training it draws random numbers from Python or numpy; the graph repeats one draw: draw with torch",)


def _remembered(traced: Traced, first: _Pass) -> tuple[str, ...]:
    """Attributes that are no buffers, and on which the next pass depends."""
    with prepared(traced.module, train=True):
        before = _attributes(traced.module)
        _pass(traced.module, lambda: _run(traced, traced.inputs))
        changed = [name for name, value in _attributes(traced.module).items() if before.get(name) is not value]
        if not changed or _same(first, _pass(traced.module, lambda: _run(traced, traced.inputs))):
            return ()
    return (f"in training it goes by {', '.join(changed[:3])}, which the graph keeps as it was: make it a buffer",)


def _left_behind(module: _Pass, graph: _Pass) -> tuple[str, ...]:
    still = [name for name in module.moved if name not in graph.moved]
    more = f" and {len(still) - 3} more" if len(still) > 3 else ""
    told = f"buffers that the module moves in training stay as they are: {', '.join(still[:3])}{more}"
    return (told,) if still else ()


def _of_module(traced: Traced, inputs: tuple[Tensor, ...], *, seed: int = 0, others: int = 0) -> _Pass:
    with prepared(traced.module, train=True):
        return _pass(traced.module, lambda: _run(traced, inputs), seed=seed, others=others)


def _of_graph(traced: Traced, inputs: tuple[Tensor, ...]) -> _Pass:
    def run() -> tuple[Tensor, ...]:
        found = traced.graph(*(x.clone() for x in inputs))
        return (found,) if isinstance(found, Tensor) else tuple(found)

    return _pass(traced.graph, run)


def _run(traced: Traced, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(traced.calling.run(traced.module, tuple(x.clone() for x in inputs)).tensors.values())


def _pass(holder: nn.Module, run: Any, *, seed: int = 0, others: int = 0) -> _Pass:
    before = {name: buffer.clone() for name, buffer in holder.named_buffers(remove_duplicate=False)}
    with quiet(), torch.enable_grad(), seeded(seed, others=others), buffers_kept(holder):
        outputs = tuple(value.detach().clone() for value in run())
        after = {name: buffer.clone() for name, buffer in holder.named_buffers(remove_duplicate=False)}
    moved = {name: value for name, value in after.items() if name in before and not _equal(before[name], value)}
    return _Pass(outputs, moved)


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one.nan_to_num(), other.nan_to_num())


def _same(one: _Pass, other: _Pass) -> bool:
    shared = [name for name in one.moved if name in other.moved]
    return agree(one.outputs, other.outputs) and agree(
        [one.moved[name] for name in shared], [other.moved[name] for name in shared]
    )


def _attributes(module: nn.Module) -> dict[str, Any]:
    """Tensors and numbers that hang on modules without being registered, by name."""
    return {
        f"{path}.{name}".lstrip("."): value
        for path, part in module.named_modules()
        for name, value in vars(part).items()
        if isinstance(value, Tensor | int | float) and name != "training"
    }
