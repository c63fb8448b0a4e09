"""Arithmetic and comparisons, on tensors or on the numbers that shapes are computed from."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from graftkit.sources.onnx_operators.call import Call, Operator, dtype_named
from graftkit.sources.onnx_operators.numbers import (
    Numbers,
    Value,
    as_float,
    as_integer,
    as_tensor,
    each,
    larger,
    operand,
    smaller,
)


def binary(
    on_numbers: Callable[..., Any], on_tensors: Callable[..., Any], dtype: torch.dtype | None = None
) -> Operator:
    """An operator of two values."""

    def run(call: Call, first: Value, second: Value) -> Value:
        if isinstance(first, Numbers) and isinstance(second, Numbers):
            return each(on_numbers, (first, second), dtype)
        if isinstance(first, Numbers) and isinstance(second, Tensor):
            return on_tensors(as_tensor(first), second)  # type: ignore[no-any-return]
        return on_tensors(first, operand(second, first))  # type: ignore[no-any-return]

    return run


def unary(on_numbers: Callable[..., Any], on_tensors: Callable[..., Any], dtype: torch.dtype | None = None) -> Operator:
    """An operator of one value."""

    def run(call: Call, value: Value) -> Value:
        if isinstance(value, Numbers):
            return each(on_numbers, (value,), dtype)
        return on_tensors(value)  # type: ignore[no-any-return]

    return run


def chain(on_numbers: Callable[..., Any], on_tensors: Callable[..., Any]) -> Operator:
    """An operator of any number of values, two at a time."""
    two = binary(on_numbers, on_tensors)

    def run(call: Call, *values: Value) -> Value:
        found = values[0]
        for value in values[1:]:
            found = two(call, found, value)
        return found

    return run


def where(call: Call, condition: Value, first: Value, second: Value) -> Value:
    """Where."""
    if isinstance(condition, Numbers) and isinstance(first, Numbers) and isinstance(second, Numbers):
        return each(lambda c, a, b: a if c else b, (condition, first, second), first.dtype)
    return torch.where(as_tensor(condition), as_tensor(first), as_tensor(second))


def cast(call: Call, value: Value, *like: Value) -> Value:
    """Cast, and CastLike."""
    dtype = like[0].dtype if like else dtype_named(call, "to", torch.float32)
    if not isinstance(value, Numbers):
        return value.to(dtype)
    if dtype.is_floating_point:
        return each(as_float, (value,), dtype)
    return each(bool if dtype is torch.bool else as_integer, (value,), dtype)


def clip(call: Call, value: Value, *bounds: Value | None) -> Tensor:
    """Clip: bounds are attributes before opset 11."""
    x: Tensor = as_tensor(value)
    given: list[Any] = [None if bound is None else operand(bound, x) for bound in (*bounds, None, None)[:2]]
    low, high = given if call.opset >= 11 else (call.get("min"), call.get("max"))
    if low is None and high is None:
        return x
    if isinstance(low, Tensor) or isinstance(high, Tensor):
        low, high = (None if b is None else torch.as_tensor(b, dtype=x.dtype) for b in (low, high))
    return torch.clamp(x, low, high)


def remainder(call: Call, first: Value, second: Value) -> Value:
    """Mod: Python's for whole numbers, C's where `fmod` says so."""
    if call.get("fmod", 0):
        return binary(math.fmod, torch.fmod)(call, first, second)  # type: ignore[no-any-return]
    return binary(operator.mod, torch.remainder)(call, first, second)  # type: ignore[no-any-return]


def _power(first: Any, second: Any) -> Any:
    if isinstance(first, int) and isinstance(second, int) and abs(second) * first.bit_length() > 128:
        raise ValueError("it computes a shape from numbers that no tensor holds")
    return first**second


def _divide(first: Any, second: Any) -> Any:
    if isinstance(first, float | torch.SymFloat) or isinstance(second, float | torch.SymFloat):
        return first / second
    return -(-first // second) if isinstance(first, int) and (first < 0) != (second < 0) else first // second


def _divide_tensors(first: Tensor, second: Any) -> Tensor:
    whole = not first.is_floating_point()
    return torch.div(first, second, rounding_mode="trunc") if whole else torch.div(first, second)


def _extreme(symbols: Callable[[Any, Any], Any], tensors: Callable[..., Any]) -> Operator:
    return chain(symbols, lambda first, second: tensors(first, torch.as_tensor(second, dtype=first.dtype)))


def _logical(name: str) -> Callable[..., Any]:
    function = getattr(torch, f"logical_{name}")
    return lambda first, second: function(first, torch.as_tensor(second))


ARITHMETIC: Mapping[str, Operator] = {
    "Add": binary(operator.add, torch.add),
    "Sub": binary(operator.sub, torch.sub),
    "Mul": binary(operator.mul, torch.mul),
    "Div": binary(_divide, _divide_tensors),
    "Pow": binary(_power, lambda x, y: torch.pow(x, y).to(x.dtype)),
    "Mod": remainder,
    "Sum": chain(operator.add, torch.add),
    "Min": _extreme(smaller, torch.minimum),
    "Max": _extreme(larger, torch.maximum),
    "Neg": unary(operator.neg, torch.neg),
    "Abs": unary(abs, torch.abs),
    "Floor": unary(lambda v: as_float(math.floor(v)), torch.floor),
    "Ceil": unary(lambda v: as_float(math.ceil(v)), torch.ceil),
    "Sqrt": unary(lambda v: torch.sym_sqrt(v) if isinstance(v, torch.SymFloat) else math.sqrt(v), torch.sqrt),
    "Reciprocal": unary(lambda v: 1 / v, torch.reciprocal),
    "Equal": binary(operator.eq, torch.eq, torch.bool),
    "Less": binary(operator.lt, torch.lt, torch.bool),
    "LessOrEqual": binary(operator.le, torch.le, torch.bool),
    "Greater": binary(operator.gt, torch.gt, torch.bool),
    "GreaterOrEqual": binary(operator.ge, torch.ge, torch.bool),
    "And": binary(lambda a, b: bool(a) and bool(b), _logical("and"), torch.bool),
    "Or": binary(lambda a, b: bool(a) or bool(b), _logical("or"), torch.bool),
    "Xor": binary(lambda a, b: bool(a) != bool(b), _logical("xor"), torch.bool),
    "Not": unary(operator.not_, torch.logical_not, torch.bool),
    "Where": where,
    "Cast": cast,
    "CastLike": cast,
    "Clip": clip,
}
