"""`If`: taken at once where its condition is known, and kept as `torch.cond` where it is a tensor's value."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from graftkit.sources.onnx_operators.call import Call, UnsupportedError
from graftkit.sources.onnx_operators.numbers import Numbers, Value, as_tensor, floats


def branch(call: Call, condition: Value, *outer: Value) -> Any:
    """If: `then_branch` and `else_branch` are modules that take what they read from around them."""
    if isinstance(condition, Numbers) or not torch.compiler.is_exporting():
        taken: Any = call.then_branch if floats(condition)[0] else call.else_branch
        return taken(*outer)
    if any(isinstance(value, Numbers) for value in outer):
        outer = tuple(as_tensor(value) for value in outer)
    return _kept(call, condition, outer)


def _kept(call: Call, condition: Tensor, outer: tuple[Any, ...]) -> Any:
    """Both branches in the graph, as functions of everything that they read, weights included."""
    modules = (call.then_branch, call.else_branch)
    held = [dict([*module.named_parameters(), *module.named_buffers()]) for module in modules]  # type: ignore[union-attr]
    places = [len(outer), len(outer) + len(held[0])]

    def then(*values: Any) -> tuple[Any, ...]:
        own = dict(zip(held[0], values[places[0] : places[1]], strict=True))
        return _results(functional_call(modules[0], own, values[: places[0]]), values)  # type: ignore[arg-type]

    def otherwise(*values: Any) -> tuple[Any, ...]:
        own = dict(zip(held[1], values[places[1] :], strict=True))
        return _results(functional_call(modules[1], own, values[: places[0]]), values)  # type: ignore[arg-type]

    operands = (*outer, *held[0].values(), *held[1].values())
    found = torch.ops.higher_order.cond(condition.reshape(()), then, otherwise, operands)
    return found[0] if call.outputs == 1 else tuple(found)


def _results(found: Any, given: tuple[Any, ...]) -> tuple[Tensor, ...]:
    """As tensors of their own: a branch may not give what it was handed."""
    values = [as_tensor(value) for value in (found if isinstance(found, tuple) else (found,))]
    if not all(isinstance(value, Tensor) for value in values):
        raise UnsupportedError("a branch gives something that is no tensor")
    return tuple(value.clone() if any(value is each for each in given) else value for value in values)
