"""The tensors of an ONNX file: from its own bytes, or from data files beside it, and never from anywhere else."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor, nn

from graftkit.core.errors import SourceError
from graftkit.sources.pickle_safety import one_line

# What torch can hold, with bytes for one number; a file with anything else is refused.
DTYPES: Mapping[int, torch.dtype] = {
    TensorProto.FLOAT: torch.float32, TensorProto.DOUBLE: torch.float64, TensorProto.FLOAT16: torch.float16,
    TensorProto.BFLOAT16: torch.bfloat16, TensorProto.INT8: torch.int8, TensorProto.INT16: torch.int16,
    TensorProto.INT32: torch.int32, TensorProto.INT64: torch.int64, TensorProto.UINT8: torch.uint8,
    TensorProto.BOOL: torch.bool,
}  # fmt: skip
# Where a tensor keeps its numbers if not as raw bytes, and how many fields a number takes.
_FIELDS: Mapping[int, str] = {
    TensorProto.FLOAT: "float_data", TensorProto.DOUBLE: "double_data", TensorProto.INT64: "int64_data",
}  # fmt: skip
Made = TypeVar("Made")
_LARGEST = 2**40  # of one size; a product of sizes is compared with the bytes that are there


class Tensors:
    """The tensors of one file, read when they are asked for, and the parameters made of them."""

    def __init__(self, folder: Path, where: str):
        self.folder = folder.resolve()
        self.where = where
        self._protos: dict[str, TensorProto] = {}
        self._read: dict[str, Tensor] = {}
        # by place in memory: as it is held, in which order of axes, and the value, so that its place is not taken again
        self._made: dict[object, tuple[nn.Parameter | Tensor, list[int], Tensor]] = {}
        self._derived: dict[object, Any] = {}
        self._files: set[Path] = set()

    @property
    def files(self) -> list[Path]:
        """The data files that the tensors checked so far lie in."""
        return sorted(self._files)

    def add(self, name: str, tensor: TensorProto) -> None:
        """Take in a tensor that `check_tensor` has passed."""
        self._protos[name] = tensor
        self._read.pop(name, None)

    def put(self, name: str, value: Tensor) -> None:
        """Take in a tensor that was computed from others."""
        self._read[name] = value

    def copy(self) -> Tensors:
        """These tensors, for a branch that has more of its own; what is made of them is shared."""
        found = Tensors(self.folder, self.where)
        found._protos, found._read = dict(self._protos), dict(self._read)
        found._made, found._derived = self._made, self._derived
        return found

    def once(self, kind: str, name: str, make: Callable[[Tensor], Made]) -> Made:
        """What a kind of step makes of a tensor, the same thing each time: it has to stay one weight.

        The branches of an `If` have weights of their own: torch.export cannot give one weight to both.
        """
        value = self[name]
        if (kind, id(value)) not in self._derived:
            self._derived[kind, id(value)] = make(value), value  # kept, so that no other tensor takes its place
        made: Made = self._derived[kind, id(value)][0]
        return made

    def __contains__(self, name: object) -> bool:
        return name in self._protos or name in self._read

    def __getitem__(self, name: str) -> Tensor:
        """The tensor. Raises SourceError."""
        if name not in self._read:
            self._read[name] = self.load(self._protos[name])
        return self._read[name]

    def size(self, name: str) -> tuple[int, ...]:
        """The tensor's shape, without reading its numbers."""
        return tuple(self._read[name].shape) if name in self._read else tuple(self._protos[name].dims)

    def floats(self, name: str) -> bool:
        """Whether it holds floating-point numbers."""
        if name in self._read:
            return self._read[name].is_floating_point()
        return DTYPES[self._protos[name].data_type].is_floating_point

    def held(self, value: Tensor, *, learns: bool) -> tuple[nn.Parameter | Tensor, tuple[int, ...] | None]:
        """The value as a module holds it, and the order of its axes in which it is read, None where as it is held.

        What is used at two places is held once, in whichever direction either reads it: it has to stay one weight.
        """
        steps = value.stride()
        order = sorted(range(value.ndim), key=lambda axis: -steps[axis])
        layout = tuple((value.shape[axis], steps[axis]) for axis in order)
        key = (value.data_ptr(), value.dtype, layout, learns)
        if key not in self._made or not value.numel():
            whole = value.contiguous()
            self._made[key] = (nn.Parameter(whole) if learns else whole), order, value
        held, first, _ = self._made[key]
        read = tuple(first[order.index(axis)] for axis in range(value.ndim))
        return held, None if read == tuple(range(value.ndim)) else read

    def check(self, tensor: TensorProto) -> None:
        """Raise SourceError where a tensor's type, sizes and bytes do not fit together."""
        called = f"the tensor {one_line(tensor.name) or '(without a name)'!r}"
        if tensor.data_type not in DTYPES:
            kind = TensorProto.DataType.Name(tensor.data_type) if tensor.data_type in _KINDS else tensor.data_type
            raise SourceError(f"{self.where}: {called} is of type {kind}, which torch does not have")
        if len(tensor.dims) > 12 or any(not 0 <= size <= _LARGEST for size in tensor.dims):
            raise SourceError(f"{self.where}: {called} has sizes that no tensor has")
        numbers = math.prod(tensor.dims)
        held = self._numbers_held(tensor)
        if held != numbers:
            raise SourceError(
                f"{self.where}: {called} says it holds {numbers} numbers, and there are {held}; copy the file again"
            )

    def _numbers_held(self, tensor: TensorProto) -> int:
        width = DTYPES[tensor.data_type].itemsize
        if tensor.data_location == TensorProto.EXTERNAL:
            return self._external(tensor)[2] // width
        if tensor.HasField("raw_data"):
            count, rest = divmod(len(tensor.raw_data), width)
            return -1 if rest else count
        return len(getattr(tensor, _FIELDS.get(tensor.data_type, "int32_data")))

    def _external(self, tensor: TensorProto) -> tuple[Path, int, int]:
        """(file, first byte, bytes) of a tensor beside the model. Raises SourceError."""
        told = {entry.key: entry.value for entry in tensor.external_data}
        location, called = told.get("location", ""), one_line(tensor.name)
        path = self.folder / location
        if not location or Path(location).is_absolute() or ".." in Path(location).parts or "\0" in location:
            raise SourceError(
                f"{self.where} wants to read {one_line(location)!r}, which is not beside it; do not use it"
            )
        try:
            real = path.resolve(strict=True)
            size = real.stat().st_size
            start, length = int(told.get("offset", 0)), int(told.get("length", -1))
        except (OSError, ValueError, RuntimeError) as error:
            raise SourceError(f"{self.where} keeps {called!r} in {one_line(location)}, which cannot be read") from error
        if not real.is_relative_to(self.folder) or not real.is_file():
            raise SourceError(
                f"{self.where} wants to read {one_line(location)!r}, which is not beside it; do not use it"
            )
        width = math.prod(tensor.dims) * DTYPES[tensor.data_type].itemsize
        length = width if length < 0 else length
        if start < 0 or length != width or start + length > size:
            raise SourceError(f"{self.where}: {one_line(location)} does not hold {called!r}; copy both files again")
        self._files.add(real)
        return real, start, length

    def load(self, tensor: TensorProto) -> Tensor:
        """The numbers of a tensor that passed `check`."""
        dtype = DTYPES[tensor.data_type]
        if tensor.data_location == TensorProto.EXTERNAL:
            path, start, length = self._external(tensor)
            with path.open("rb") as file:
                file.seek(start)
                raw = bytearray(file.read(length))
        elif tensor.HasField("raw_data"):
            raw = bytearray(tensor.raw_data)
        else:
            array = np.array(numpy_helper.to_array(tensor))
            raw = bytearray(array.tobytes())
        if not raw:
            return torch.zeros(tuple(tensor.dims), dtype=dtype)
        return torch.frombuffer(raw, dtype=dtype).reshape(tuple(tensor.dims))


_KINDS = frozenset(TensorProto.DataType.values())
