"""Example inputs from `--input [name:]shape[:dtype]`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from torch import Tensor

    from graftkit.contracts import Inputs

ROWS = 2  # one would be taken for a fixed batch size
_DTYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
_SHAPE = re.compile(r"([1-9]\d*([,x][1-9]\d*)*)?")
_NAME = re.compile(r"[^\W\d][\w.\-/]*")


@dataclass(frozen=True)
class Asked:
    """One input as it was written: `name` is None where none was given, `shape` is that of one row."""

    name: str | None
    shape: tuple[int, ...]
    dtype: str

    def tensor(self) -> Tensor:
        """Two rows that any model can read: zeros, and for a mask ones."""
        import torch

        kind = getattr(torch, self.dtype)
        make = torch.ones if kind is torch.bool else torch.zeros
        return make(ROWS, *self.shape, dtype=kind)


def example_of(texts: Sequence[str]) -> Inputs:
    """The inputs of a batch: one tensor, several in order, or, where names are given, by name.

    Raises click.BadParameter.
    """
    asked = [read(text) for text in texts]
    names = [one.name for one in asked if one.name is not None]
    if names and len(names) < len(asked):
        raise _bad("give all inputs a name, or none")
    if len(set(names)) < len(names):
        raise _bad(f"{next(name for name in names if names.count(name) > 1)} is given twice")
    tensors = [one.tensor() for one in asked]
    if names:
        return dict(zip(names, tensors, strict=True))
    return tensors[0] if len(tensors) == 1 else tuple(tensors)


def read(text: str) -> Asked:
    """One input from text such as `3,32,32`, `tokens:128:int64`, `128:int64` or `age:`. Raises click.BadParameter."""
    parts = [part.strip() for part in text.split(":")]
    dtype = parts.pop() if len(parts) > 1 and parts[-1] in _DTYPES else "float32"
    name = parts.pop(0) if len(parts) > 1 else None
    shape = parts[0]
    if len(parts) > 1 or not _SHAPE.fullmatch(shape) or (name is not None and not _NAME.fullmatch(name)):
        raise _bad(
            f"{text!r} is not [name:]shape[:dtype], as 3,32,32 or tokens:128:int64; dtypes are {', '.join(_DTYPES)}"
        )
    return Asked(name, tuple(int(size) for size in re.split("[,x]", shape) if size), dtype)


def shapes(example: Inputs) -> str:
    """The shape of one row of each input, in words."""
    if isinstance(example, Mapping):
        return f"rows of {', '.join(f'{name} {list(tensor.shape[1:])}' for name, tensor in example.items())}"
    tensors = [example] if hasattr(example, "shape") else list(example)
    return f"rows of {', '.join(str(list(tensor.shape[1:])) for tensor in tensors)}"


def _bad(said: str) -> click.BadParameter:
    return click.BadParameter(said, param_hint="--input")
