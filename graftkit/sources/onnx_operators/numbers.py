"""Small arrays of numbers that shapes are computed from; sizes that are free stay symbols in them.

An ONNX graph computes shapes with tensors. Traced like that, every size would hang on a tensor's values and could not
stay free; so whatever comes from shapes and constants alone is computed with Python's numbers instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

MOST = 64  # numbers in a constant that may be one of them
_MOST_COMPUTED = 2**16  # in an array: an operator may multiply the sizes of what it is given
_LARGEST = 2**64  # of a whole number; Python's would grow without end


@dataclass(frozen=True, eq=False)
class Numbers:
    """An array of Python's numbers, or of torch's symbols for them, and the type that they would have in a tensor."""

    values: np.ndarray
    dtype: torch.dtype

    def __post_init__(self) -> None:
        few(self.values.size)

    @property
    def ndim(self) -> int:
        """How many dimensions it has."""
        return self.values.ndim

    def flat(self) -> list[Any]:
        """All numbers, one after the other."""
        return list(self.values.reshape(-1))

    @property
    def plain(self) -> bool:
        """Whether no number is a symbol."""
        return not any(isinstance(value, _SYMBOLS) for value in self.flat())


def few(count: int) -> None:
    """Raise ValueError where an array would have more numbers than any shape is computed from."""
    if count > _MOST_COMPUTED:
        raise ValueError(f"it computes a shape from {count} numbers")


Value = Tensor | Numbers
# torch's own on symbols, and Python's on plain numbers
smaller: Callable[[Any, Any], Any] = torch.sym_min
larger: Callable[[Any, Any], Any] = torch.sym_max
as_integer: Callable[[Any], Any] = torch.sym_int
as_float: Callable[[Any], Any] = torch.sym_float
_SYMBOLS = (torch.SymInt, torch.SymFloat, torch.SymBool)


def numbers(values: Any, dtype: torch.dtype = torch.int64) -> Numbers:
    """From a number, or nested lists of them."""
    return Numbers(_array(values), dtype)


def constant(tensor: Tensor) -> Numbers | None:
    """A small constant as numbers; None where it is larger."""
    return Numbers(_array(tensor.tolist()), tensor.dtype) if tensor.numel() <= MOST else None


def as_tensor(value: Any) -> Any:
    """A tensor of the numbers; anything else is itself."""
    if not isinstance(value, Numbers):
        return value
    if value.plain:
        return torch.tensor(value.values.tolist(), dtype=value.dtype)
    parts = [torch.scalar_tensor(number, dtype=value.dtype) for number in value.flat()]
    return torch.stack(parts).reshape(value.values.shape)


def integers(value: Value) -> list[Any]:
    """The whole numbers in a shape, a list of axes, a size; what has to be known before anything runs."""
    if isinstance(value, Numbers):
        return [as_integer(n) if isinstance(n, float | torch.SymFloat) else n for n in value.flat()]
    return [int(number) for number in value.reshape(-1).tolist()]


def floats(value: Value) -> list[float]:
    """The numbers, as they are."""
    return value.flat() if isinstance(value, Numbers) else value.reshape(-1).tolist()


def operand(value: Value, beside: Value) -> Any:
    """The value as the other side of an arithmetic operation with a tensor: a single number stays one."""
    if (
        isinstance(value, Numbers)
        and value.values.size == 1
        and isinstance(beside, Tensor)
        and beside.ndim >= value.ndim
    ):
        return value.values.item()
    return as_tensor(value)


def each(function: Callable[..., Any], values: Sequence[Numbers], dtype: torch.dtype | None = None) -> Numbers:
    """The function of the numbers in turn, broadcast."""
    few(math.prod(np.broadcast_shapes(*(value.values.shape for value in values))))
    arrays = np.broadcast_arrays(*(value.values for value in values))
    found = [function(*members) for members in zip(*(array.reshape(-1) for array in arrays), strict=True)]
    if any(isinstance(number, int) and abs(number) > _LARGEST for number in found):
        raise ValueError("it computes a shape from numbers that no tensor holds")
    flat = np.empty(len(found), dtype=object)
    flat[:] = found
    return Numbers(flat.reshape(arrays[0].shape), dtype or values[0].dtype)


def _array(values: Any) -> np.ndarray:
    """Objects, so that numpy leaves symbols alone."""
    flat: list[Any] = []
    shape = _shape(values)
    _flatten(values, flat)
    found = np.empty(len(flat), dtype=object)
    found[:] = flat
    return found.reshape(shape)


def _shape(values: Any) -> tuple[int, ...]:
    if isinstance(values, list | tuple):
        return (len(values), *(_shape(values[0]) if values else ()))
    return ()


def _flatten(values: Any, into: list[Any]) -> None:
    if isinstance(values, list | tuple):
        for value in values:
            _flatten(value, into)
    else:
        into.append(values)
