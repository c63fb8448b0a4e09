"""Operators that read, compute and change shapes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from graftkit.sources.onnx_operators.call import Call, Operator, UnsupportedError, affordable, dtype_named, given
from graftkit.sources.onnx_operators.numbers import (
    MOST,
    Numbers,
    Value,
    as_tensor,
    few,
    integers,
    larger,
    numbers,
    smaller,
)


def shape(call: Call, value: Value) -> Numbers:
    """Shape: the sizes, as numbers."""
    sizes = list(value.values.shape) if isinstance(value, Numbers) else list(value.shape)
    return numbers(sizes[call.get("start", 0) : call.get("end")])


def size(call: Call, value: Value) -> Numbers:
    """Size: how many numbers there are."""
    return numbers(value.values.size if isinstance(value, Numbers) else value.numel())


def identity(call: Call, value: Value) -> Value:
    """Identity."""
    return value


def reshape(call: Call, value: Value, *to: Value) -> Value:
    """Reshape: a zero keeps a size, unless `allowzero`; before opset 5 the shape is an attribute."""
    wanted = integers(to[0]) if to else call.get("shape")
    sizes = value.values.shape if isinstance(value, Numbers) else value.shape
    keeps = not call.get("allowzero", 0)
    found = [sizes[i] if keeps and isinstance(n, int) and n == 0 else n for i, n in enumerate(wanted)]
    if isinstance(value, Numbers):
        return Numbers(value.values.reshape(found), value.dtype)
    return value.reshape(found)


def flatten(call: Call, value: Value) -> Tensor:
    """Flatten: always to two dimensions."""
    x = as_tensor(value)
    axis = call.get("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    if axis == 1 and x.ndim > 1:
        return torch.flatten(x, 1)
    return (
        x.reshape(-1, 1)
        if axis == x.ndim
        else torch.flatten(x.unsqueeze(0) if axis == 0 else x.flatten(0, axis - 1), 1)
    )


def expand(call: Call, value: Value, to: Value) -> Tensor:
    """Expand: to the larger size of both sides."""
    x, wanted = as_tensor(value), integers(to)
    if len(wanted) < x.ndim:
        wanted = [1] * (x.ndim - len(wanted)) + wanted
    new = len(wanted) - x.ndim
    affordable(wanted)
    keep = [n if i < new or not (isinstance(n, int) and n == 1) else x.shape[i - new] for i, n in enumerate(wanted)]
    return x.expand(keep)  # type: ignore[no-any-return]


def tile(call: Call, value: Value, repeats: Value) -> Tensor:
    """Tile."""
    x, times = as_tensor(value), integers(repeats)
    affordable([n * s for n, s in zip(times, x.shape, strict=True)])
    return x.repeat(*times)  # type: ignore[no-any-return]


def axes_of(call: Call, inputs: Sequence[Value | None], place: int = 0) -> list[int] | None:
    """Axes, from an input or, in older files, an attribute; None where they are not given."""
    axes = given(inputs, place)
    return call.get("axes") if axes is None else integers(axes)


def squeeze(call: Call, value: Value, *rest: Value | None) -> Value:
    """Squeeze: without axes, every size that is one."""
    axes = axes_of(call, rest)
    if isinstance(value, Numbers):
        return Numbers(np.squeeze(value.values, None if axes is None else tuple(axes)), value.dtype)
    return value.squeeze() if axes is None else value.squeeze(tuple(axes))


def unsqueeze(call: Call, value: Value, *rest: Value | None) -> Value:
    """Unsqueeze: axes count in the result."""
    axes = axes_of(call, rest) or []
    rank = value.ndim + len(axes)
    if len({axis % rank for axis in axes}) != len(axes) or rank > 16:
        raise UnsupportedError(f"its axes {axes} do not fit")
    for axis in sorted(axis % rank for axis in axes):
        if isinstance(value, Numbers):
            value = Numbers(np.expand_dims(value.values, axis), value.dtype)
        else:
            value = value.unsqueeze(axis)
    return value


def transpose(call: Call, value: Value) -> Value:
    """Transpose: without an order, back to front."""
    order = call.get("perm", list(range(value.ndim - 1, -1, -1)))
    if isinstance(value, Numbers):
        return Numbers(value.values.transpose(order), value.dtype)
    return value.permute(order)


def concat(call: Call, *values: Value) -> Value:
    """Concat; a held tensor of one row, as an exporter leaves a class token, is there for every row of a batch."""
    axis = call.get("axis", 0)
    arrays = [value.values for value in values if isinstance(value, Numbers)]
    if len(arrays) == len(values):
        few(sum(array.size for array in arrays))
        return Numbers(np.concatenate(arrays, axis), values[0].dtype)
    tensors, held = [as_tensor(value) for value in values], {id(t) for t in [*call.parameters(), *call.buffers()]}
    rows = next((x.shape[0] for x in tensors if x.ndim and id(x) not in held), None)
    if axis % tensors[0].ndim and rows is not None:
        tensors = [x.expand(rows, *x.shape[1:]) if id(x) in held and x.shape[0] == 1 else x for x in tensors]
    return torch.cat(tensors, axis)


def cut(call: Call, value: Value, *rest: Value) -> Value:
    """Slice: starts, ends, axes and steps are attributes before opset 10."""
    starts, ends = (integers(rest[0]), integers(rest[1])) if rest else (call.get("starts"), call.get("ends"))
    axes = axes_of(call, rest, 2)
    steps = given(rest, 3)
    for start, end, axis, step in zip(
        starts,
        ends,
        range(len(starts)) if axes is None else axes,
        [1] * len(starts) if steps is None else integers(steps),
        strict=True,
    ):
        value = _cut_one(value, start, end, axis % value.ndim, step)
    return value


def _cut_one(value: Value, start: Any, end: Any, axis: int, step: int) -> Value:
    if isinstance(value, Numbers):
        last = None if step < 0 and isinstance(end, int) and end < -value.values.shape[axis] else end
        return Numbers(value.values[(slice(None),) * axis + (slice(start, last, step),)], value.dtype)
    if step > 0:
        return value[(slice(None),) * axis + (slice(start, end, step),)]
    length = value.shape[axis]
    first = smaller(start + length if start < 0 else start, length - 1)
    last = larger(end + length if end < 0 else smaller(end, length - 1), -1)
    around = (slice(None),) * axis + (slice(length - 1 - first, length - 1 - last, -step),)
    return value.flip(axis)[around]


def gather(call: Call, value: Value, at: Value) -> Value:
    """Gather: a weight read by ids is an embedding."""
    axis = call.get("axis", 0)
    if isinstance(value, Numbers) and isinstance(at, Numbers):
        few(at.values.size * value.values.size // max(1, value.values.shape[axis]))
        return Numbers(np.asarray(np.take(value.values, at.values.astype(np.int64), axis), dtype=object), value.dtype)
    x = as_tensor(value)
    axis = axis % x.ndim
    if isinstance(at, Numbers) and at.plain:
        places = [int(n) for n in at.flat()]
        if not at.ndim:
            return x.select(axis, places[0])  # type: ignore[no-any-return]
        places = [n + x.shape[axis] if n < 0 else n for n in places]
        return _picked(x, axis, as_tensor(numbers(places)), at.values.shape)
    index = as_tensor(at)
    index = torch.where(index < 0, index + x.shape[axis], index)
    if axis == 0 and x.ndim == 2 and isinstance(x, torch.nn.Parameter):
        return F.embedding(index, x)
    return _picked(x, axis, index.reshape(-1), index.shape)


def _picked(x: Tensor, axis: int, index: Tensor, sizes: Sequence[Any]) -> Tensor:
    found = x.index_select(axis, index)
    return found if len(sizes) == 1 else found.reshape([*x.shape[:axis], *sizes, *x.shape[axis + 1 :]])


def split(call: Call, value: Value, *rest: Value | None) -> tuple[Value, ...]:
    """Split: into the sizes that are given, or evenly, the last part smaller."""
    axis, sizes = call.get("axis", 0), given(rest, 0)
    if sizes is not None or call.get("split"):
        parts = call.get("split") if sizes is None else integers(sizes)
    else:
        length = value.values.shape[axis] if isinstance(value, Numbers) else value.shape[axis]
        count = call.get("num_outputs", call.outputs)
        even = -(-length // count)
        parts = [even] * (count - 1) + [length - even * (count - 1)]
    if isinstance(value, Numbers):
        return tuple(Numbers(p, value.dtype) for p in np.split(value.values, np.cumsum(parts)[:-1], axis))
    return torch.split(value, parts, axis)


def span(call: Call, first: Value, last: Value, step: Value) -> Value:
    """Range."""
    start, end, by = (integers(v)[0] if not v.dtype.is_floating_point else _single(v) for v in (first, last, step))
    if all(isinstance(n, int) for n in (start, end, by)) and len(range(start, end, by)) <= MOST:
        return numbers(list(range(start, end, by)), first.dtype)
    if all(isinstance(n, int | float) for n in (start, end, by)):
        affordable([max(0, math.ceil((end - start) / by))])
    return torch.arange(start, end, by, dtype=first.dtype)


def _single(value: Value) -> Any:
    return value.flat()[0] if isinstance(value, Numbers) else value.item()


def filled(call: Call, sizes: Value) -> Value:
    """ConstantOfShape."""
    shape = integers(sizes)
    value: Numbers = call.get("value") or numbers([0.0], torch.float32)
    number = value.flat()[0]
    if not value.dtype.is_floating_point and len(shape) <= 1 and all(isinstance(n, int) and n <= MOST for n in shape):
        return numbers([number] * shape[0] if shape else number, value.dtype)
    return torch.full(affordable(shape), number, dtype=value.dtype)


def one_hot(call: Call, at: Value, depth: Value, values: Value) -> Tensor:
    """OneHot: `values` is (off, on); negative ids count from the end."""
    (count,) = affordable(integers(depth)[:1])
    index, (off, on) = as_tensor(at), as_tensor(values).unbind()
    axis = call.get("axis", -1)
    ids = torch.where(index < 0, index + count, index).to(torch.int64).unsqueeze(axis)
    wanted = torch.arange(count)
    wanted = wanted.reshape([-1 if i == axis % ids.ndim else 1 for i in range(ids.ndim)])
    return torch.where(ids == wanted, on, off)


def triangle(call: Call, value: Value, *rest: Value | None) -> Tensor:
    """Trilu."""
    diagonal = given(rest, 0)
    k = 0 if diagonal is None else integers(diagonal)[0]
    return (torch.triu if call.get("upper", 1) else torch.tril)(as_tensor(value), k)


def unit(call: Call, value: Value) -> Tensor:
    """EyeLike."""
    x = as_tensor(value)
    rows, columns = x.shape
    shift = torch.arange(columns)[None] - torch.arange(rows)[:, None]
    found: Tensor = shift == call.get("k", 0)
    return found.to(dtype_named(call, "dtype", x.dtype))


def gather_elements(call: Call, value: Value, at: Value) -> Tensor:
    """GatherElements."""
    x, index, axis = as_tensor(value), as_tensor(at), call.get("axis", 0)
    return torch.gather(x, axis, torch.where(index < 0, index + x.shape[axis], index).to(torch.int64))


def gather_nd(call: Call, value: Value, at: Value) -> Tensor:
    """GatherND: the last axis of the indices counts through the axes behind the batch's."""
    x, index, batch = as_tensor(value), as_tensor(at), call.get("batch_dims", 0)
    rows = [
        torch.arange(x.shape[axis]).reshape([-1 if i == axis else 1 for i in range(index.ndim - 1)])
        for axis in range(batch)
    ]
    return x[(*rows, *index.unbind(-1))]  # type: ignore[no-any-return]


SHAPES: Mapping[str, Operator] = {
    "Shape": shape,
    "Size": size,
    "Identity": identity,
    "Reshape": reshape,
    "Flatten": flatten,
    "Expand": expand,
    "Tile": tile,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Transpose": transpose,
    "Concat": concat,
    "Slice": cut,
    "Gather": gather,
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "Split": split,
    "Range": span,
    "ConstantOfShape": filled,
    "OneHot": one_hot,
    "Trilu": triangle,
    "EyeLike": unit,
}
