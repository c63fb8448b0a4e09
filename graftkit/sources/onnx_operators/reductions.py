"""Operators that reduce over axes, or order along one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from graftkit.sources.onnx_operators.call import Call, Operator
from graftkit.sources.onnx_operators.numbers import Numbers, Value, as_tensor, integers, larger, numbers, smaller
from graftkit.sources.onnx_operators.shapes import axes_of

Reduction = Callable[[Tensor, tuple[int, ...], bool], Tensor]


def _product(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    for axis in sorted((axis % x.ndim for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


def _log_sum(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    return x.sum(axes, keepdim=keep).log()


_REDUCTIONS: Mapping[str, Reduction] = {
    "ReduceMean": lambda x, axes, keep: x.mean(axes, keepdim=keep),
    "ReduceSum": lambda x, axes, keep: x.sum(axes, keepdim=keep, dtype=x.dtype),
    "ReduceMax": lambda x, axes, keep: x.amax(axes, keepdim=keep),
    "ReduceMin": lambda x, axes, keep: x.amin(axes, keepdim=keep),
    "ReduceProd": _product,
    "ReduceL1": lambda x, axes, keep: x.abs().sum(axes, keepdim=keep, dtype=x.dtype),
    "ReduceL2": lambda x, axes, keep: x.square().sum(axes, keepdim=keep, dtype=x.dtype).sqrt().to(x.dtype),
    "ReduceSumSquare": lambda x, axes, keep: x.square().sum(axes, keepdim=keep, dtype=x.dtype),
    "ReduceLogSum": _log_sum,
    "ReduceLogSumExp": lambda x, axes, keep: x.logsumexp(axes, keepdim=keep),
}
# What is left of a reduction over no axes, where that is not the value itself.
_OF_EACH: Mapping[str, Callable[[Tensor], Tensor]] = {
    "ReduceL1": torch.abs,
    "ReduceL2": torch.abs,
    "ReduceSumSquare": torch.square,
    "ReduceLogSum": torch.log,
}
_ON_NUMBERS: Mapping[str, Callable[[Any, Any], Any]] = {
    "ReduceSum": lambda a, b: a + b,
    "ReduceProd": lambda a, b: a * b,
    "ReduceMax": larger,
    "ReduceMin": smaller,
}


def _reducing(name: str) -> Operator:
    def run(call: Call, value: Value, *rest: Value | None) -> Value:
        axes, keep = axes_of(call, rest), bool(call.get("keepdims", 1))
        if not axes and call.get("noop_with_empty_axes", 0):
            return _OF_EACH[name](as_tensor(value)) if name in _OF_EACH else value
        if isinstance(value, Numbers) and name in _ON_NUMBERS and value.ndim == 1 and value.values.size:
            found = reduce(_ON_NUMBERS[name], value.flat())
            return numbers([found] if keep else found, value.dtype)
        x = as_tensor(value)
        if not x.ndim:
            return _OF_EACH[name](x) if name in _OF_EACH else x
        return _REDUCTIONS[name](x, tuple(axes or range(x.ndim)), keep)

    return run


def cumulate(call: Call, value: Value, axis: Value) -> Tensor:
    """CumSum, from either end, with or without the number itself."""
    x, at = as_tensor(value), integers(axis)[0]
    x = x.flip(at) if call.get("reverse", 0) else x
    found: Tensor = x.cumsum(at, dtype=x.dtype)
    found = found - x if call.get("exclusive", 0) else found
    return found.flip(at) if call.get("reverse", 0) else found


def largest(call: Call, value: Value, *rest: Value) -> tuple[Tensor, Tensor]:
    """TopK: how many is an attribute before opset 10."""
    count = integers(rest[0])[0] if rest else call.get("k")
    found = torch.topk(
        as_tensor(value), count, call.get("axis", -1), bool(call.get("largest", 1)), bool(call.get("sorted", 1))
    )
    return found.values, found.indices


def hardmax(call: Call, value: Value) -> Tensor:
    """Hardmax: one at the first of the largest along an axis; before opset 13 along all from that axis on."""
    x = as_tensor(value)
    if call.opset < 13:
        axis = call.get("axis", 1)
        flat = x.reshape(1, -1) if axis % x.ndim == 0 else x.flatten(axis)
        return _at_largest(flat, -1).reshape(x.shape)
    return _at_largest(x, call.get("axis", -1))


def _at_largest(x: Tensor, axis: int) -> Tensor:
    return torch.zeros_like(x).scatter(axis, x.argmax(axis, keepdim=True), 1.0)


REDUCTIONS: Mapping[str, Operator] = {
    **{name: _reducing(name) for name in _REDUCTIONS},
    "CumSum": cumulate,
    "TopK": largest,
    "Hardmax": hardmax,
}
