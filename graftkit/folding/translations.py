"""Operators that the exporter has no form for, or one for the example's size alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx_ir as ir
import torch
from onnxscript import FLOAT, opset18

op: Any = opset18  # whose types are those of ONNX
Size = Any  # a number, or a value of the graph


def adaptive_average(x: FLOAT, output_size: Sequence[Size]) -> Any:
    """The mean over each of `output_size` stretches of the last dimensions, one or two, as torch cuts them.

    Where sizes are free, that is a product with a matrix that is made from them; see `_shares`.
    """
    if all(isinstance(size, int) and size == 1 for size in output_size):
        return op.ReduceMean(x, op.Constant(value_ints=list(range(-len(output_size), 0))), keepdims=1)
    kernel = _kernel(x, output_size)
    if kernel is not None:
        return op.AveragePool(x, kernel_shape=kernel, strides=kernel)
    x = op.MatMul(x, op.Transpose(_shares(x, -1, output_size[-1]), perm=[1, 0]))
    return x if len(output_size) == 1 else op.MatMul(_shares(x, -2, output_size[-2]), x)


def _kernel(x: Any, output_size: Sequence[Size]) -> list[int] | None:
    """How long all stretches are, None where they differ or that is not known."""
    kernel = []
    for size, count in zip((x.shape or ())[-len(output_size) :], output_size, strict=False):
        if not isinstance(size, int) or not isinstance(count, int) or size % count:
            return None
        kernel.append(size // count)
    return kernel if len(kernel) == len(output_size) else None


def _shares(x: Any, axis: int, number: Size) -> Any:
    """What each position along an axis, the last or the one before, adds to each mean: [count, L].

    Stretch i of n goes from floor(i L / n) to ceil((i + 1) L / n).
    """
    zero, one = op.Constant(value_int=0), op.Constant(value_int=1)
    length = op.Squeeze(op.Shape(x, start=axis) if axis == -1 else op.Shape(x, start=axis, end=axis + 1))
    count = op.Constant(value_int=number) if isinstance(number, int) else op.Squeeze(number)
    column = op.Unsqueeze(op.Range(zero, count, one), op.Constant(value_ints=[1]))
    first = op.Div(op.Mul(column, length), count)
    last = op.Div(op.Add(op.Mul(op.Add(column, one), length), op.Sub(count, one)), count)
    places = op.Range(zero, length, one)
    inside = op.And(op.GreaterOrEqual(places, first), op.Less(places, last))
    return op.Div(op.CastLike(inside, x), op.CastLike(op.Sub(last, first), x))


_SHIFT = 8  # from where on Stirling's series is exact in single precision


def log_gamma(x: FLOAT) -> Any:
    """The logarithm of |gamma(x)|; infinite at 0, -1, -2 and so on.

    From 8 on Stirling's series; below, the series at x + 8 less the logarithms on the way there; for x < 1/2 Euler's
    reflection.

    Abramowitz and Stegun 1964, 6.1.15, 6.1.17, 6.1.41.
    """

    def number(value: float) -> Any:
        return op.CastLike(op.Constant(value_float=value), x)

    low = op.Less(x, number(0.5))
    y = op.Where(low, op.Sub(number(1.0), x), x)
    small = op.Less(y, number(float(_SHIFT)))
    near = op.Where(small, y, number(1.0))  # so that no product overflows
    product = near
    for step in range(1, _SHIFT):
        product = op.Mul(product, op.Add(near, number(float(step))))
    z = op.Where(small, op.Add(y, number(float(_SHIFT))), y)
    part = op.Div(number(1.0), z)
    square = op.Mul(part, part)
    series = op.Sub(number(1 / 12), op.Mul(square, op.Sub(number(1 / 360), op.Mul(square, number(1 / 1260)))))
    main = op.Sub(op.Mul(op.Sub(z, number(0.5)), op.Log(z)), z)
    above = op.Add(op.Add(main, number(0.5 * math.log(2 * math.pi))), op.Mul(part, series))
    right = op.Where(small, op.Sub(above, op.Log(product)), above)
    left = op.Sub(op.Log(op.Div(number(math.pi), op.Abs(op.Sin(op.Mul(number(math.pi), x))))), right)
    poles = op.Or(op.And(low, op.Equal(x, op.Floor(x))), op.IsInf(x))
    return op.Where(poles, number(math.inf), op.Where(low, left, right))


def _factor(x: FLOAT, other: Size, alpha: float = 1.0) -> Any:
    """A number of torch's, or one that is made of sizes, as x is; the exporter's own forms take the former alone."""
    known = isinstance(other, int | float)
    value = op.Constant(value=ir.tensor(other, dtype=x.dtype)) if known else op.CastLike(other, x)
    return value if alpha == 1 else op.Mul(value, op.Constant(value=ir.tensor(alpha, dtype=x.dtype)))


def times_number(x: FLOAT, other: Size) -> Any:
    """The product with a number."""
    return op.Mul(x, _factor(x, other))


def plus_number(x: FLOAT, other: Size, alpha: float = 1.0) -> Any:
    """The sum with alpha times a number."""
    return op.Add(x, _factor(x, other, alpha))


def minus_number(x: FLOAT, other: Size, alpha: float = 1.0) -> Any:
    """The difference from alpha times a number."""
    return op.Sub(x, _factor(x, other, alpha))


TRANSLATIONS: Mapping[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten.adaptive_avg_pool1d.default: adaptive_average,
    torch.ops.aten.adaptive_avg_pool2d.default: adaptive_average,
    torch.ops.aten.lgamma.default: log_gamma,
    torch.ops.aten.mul.Scalar: times_number,
    torch.ops.aten.add.Scalar: plus_number,
    torch.ops.aten.sub.Scalar: minus_number,
}
