"""What a file takes and gives, for runtimes that do not say it, or take whatever they are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from graftkit.core.errors import ExportError, MismatchError, shown
from graftkit.runtimes.ports import check_names, first_line, shapes

Size = int | str | None  # a free size has a name, or none


@dataclass(frozen=True)
class Value:
    """An input or output; `shape` is None where the file does not tell."""

    name: str
    dtype: np.dtype
    shape: tuple[Size, ...] | None

    def text(self) -> str:
        sizes = ", ".join("?" if size is None else str(size) for size in self.shape or ("...",))
        return f"{self.name} [{sizes}] of {self.dtype}"


@dataclass(frozen=True, eq=False)
class Described:
    """A file in memory, with its weights inside, and its inputs and outputs in their order.

    Attributes:
        content: the model, serialized.
        runtime: who is to run it, for messages.
        name: the graph's.
    """

    content: bytes
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    runtime: str
    name: str

    def check(self, given: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The inputs in the file's order. Raises MismatchError where one is not what the file takes."""
        check_names(given, [value.name for value in self.inputs], self.runtime)
        sizes: dict[str, int] = {}
        for value in self.inputs:
            if not _fits(value, given[value.name], sizes):
                raise MismatchError(f"{self.runtime} fails on {shapes(given)}: the file takes {self._taken()}")
        return [np.ascontiguousarray(given[value.name]).reshape(given[value.name].shape) for value in self.inputs]

    def typed(self, outputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Outputs in the types of the file, of which some runtimes know fewer, without further axes of one element.

        Raises MismatchError where one has not the shape that the file gives it.
        """
        found = [_as(value, array) for value, array in zip(self.outputs, outputs, strict=True)]
        for value, array in zip(self.outputs, found, strict=True):
            if not _has_shape(value, array):
                raise MismatchError(f"{self.runtime} gives {shapes({value.name: array})} for {value.text()}")
        return found

    def free(self) -> list[str | None]:
        """The free sizes, each once."""
        sizes = (size for value in self.inputs for size in value.shape or ())
        return list(dict.fromkeys(size for size in sizes if not isinstance(size, int)))

    def sizes(self, given: Mapping[str, np.ndarray]) -> dict[str, int]:
        """What each named free size is in these inputs."""
        pairs = (pair for v in self.inputs for pair in zip(v.shape or (), given[v.name].shape, strict=False))
        return {size: found for size, found in pairs if isinstance(size, str)}

    def at(self, sizes: Mapping[str, int]) -> Described:
        """The same file with free sizes fixed."""
        proto = onnx.load_model_from_string(self.content)
        del proto.graph.value_info[:]  # which name sizes, too, and can be told again
        for info in (*proto.graph.input, *proto.graph.output):
            for size in info.type.tensor_type.shape.dim:
                if size.dim_param in sizes:
                    size.dim_value = sizes[size.dim_param]
        return described(proto.SerializeToString(), self.runtime)

    def _taken(self) -> str:
        return "; ".join(value.text() for value in self.inputs)


def described(model: bytes | Path, runtime: str) -> Described:
    """A file, read with the weights beside it. Raises ExportError."""
    try:
        proto = onnx.load_model_from_string(model) if isinstance(model, bytes) else onnx.load(str(model))
        constants = {tensor.name for tensor in proto.graph.initializer}  # older files list them as inputs, too
        taken = tuple(_value(value) for value in proto.graph.input if value.name not in constants)
        given = tuple(_value(value) for value in proto.graph.output)
        content = model if isinstance(model, bytes) else _serialized(proto)
        return Described(content, taken, given, runtime, proto.graph.name)
    except ExportError:
        raise
    except Exception as error:  # protobuf, onnx and the file system each have their own
        raise ExportError(f"{runtime} does not load the file: {shown(first_line(error))}") from error


def _serialized(proto: onnx.ModelProto) -> bytes:
    if proto.ByteSize() >= onnx.checker.MAXIMUM_PROTOBUF:
        raise ExportError("the file has more than 2 GiB of weights; onnxruntime alone is given such files")
    return bytes(proto.SerializeToString())


def _value(info: onnx.ValueInfoProto) -> Value:
    kind = info.type.tensor_type
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))
    return Value(info.name, dtype, _shape(kind) if kind.HasField("shape") else None)


def _shape(kind: onnx.TypeProto.Tensor) -> tuple[Size, ...]:
    return tuple(size.dim_value if size.HasField("dim_value") else size.dim_param or None for size in kind.shape.dim)


def _fits(value: Value, array: np.ndarray, sizes: dict[str, int]) -> bool:
    """Whether it is of the type and shape; what a named size is, `sizes` remembers."""
    if array.dtype != value.dtype or (value.shape is not None and len(value.shape) != array.ndim):
        return False
    for size, found in zip(value.shape or (), array.shape, strict=False):
        wanted = sizes.setdefault(size, found) if isinstance(size, str) and size.isidentifier() else size
        if isinstance(wanted, int) and wanted != found:
            return False
    return True


def _has_shape(value: Value, array: np.ndarray) -> bool:
    """Whether its rank is the file's, and the sizes that are fixed there."""
    pairs = zip(value.shape or (), array.shape, strict=False)
    same = all(size == found for size, found in pairs if isinstance(size, int))
    return value.shape is None or (len(value.shape) == array.ndim and same)


def _as(value: Value, array: np.ndarray) -> np.ndarray:
    rank = array.ndim if value.shape is None else len(value.shape)
    further = array.shape[rank:]
    return (array.reshape(array.shape[:rank]) if set(further) == {1} else array).astype(value.dtype, copy=False)
