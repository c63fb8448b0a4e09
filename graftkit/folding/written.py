"""An ONNX model whose large weights stay where they are until somebody asks for their numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import prod

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from graftkit.core.errors import ExportError

LARGE = 2**18  # bytes; a larger weight stays out of the graph while that is rewritten
ONE_FILE = 2**31 - 2**24  # bytes; protobuf ends at 2 GiB, and the graph itself needs room
_AT_ONCE = 2**24  # bytes that are copied at a time

Load = Callable[[], np.ndarray]


@dataclass(frozen=True, eq=False)
class Written:
    """A model as it will be written.

    Attributes:
        proto: the model; an initializer with external data has its numbers in `weights`.
        weights: by what the initializer says is its location. They are views of the live model wherever possible,
            so it must not be trained on before the file is written.
        large: initializers of more bytes are kept out of the graph.
    """

    proto: onnx.ModelProto
    weights: Mapping[str, Load] = field(default_factory=dict)
    large: int = LARGE

    def nbytes(self) -> int:
        """About how many bytes the model takes in all."""
        return int(self.proto.ByteSize()) + sum(byte_size(tensor) for tensor, _ in self.apart())

    def apart(self) -> Iterator[tuple[TensorProto, Load]]:
        """The initializers that are kept out of the graph, with their numbers."""
        for tensor in self.proto.graph.initializer:
            if is_apart(tensor):
                yield tensor, self.weights[location(tensor)]

    def whole(self) -> onnx.ModelProto:
        """The model as one message, weights included. Raises ExportError where it is too large for one."""
        if self.nbytes() > ONE_FILE:
            raise ExportError(
                f"the model has {self.nbytes() / 2**30:.1f} GiB, more than one ONNX message holds; `export` writes it"
                " as a file with its weights beside it"
            )
        model = _copy(self.proto)
        for tensor in model.graph.initializer:
            if is_apart(tensor):
                tensor.CopyFrom(numpy_helper.from_array(self.weights[location(tensor)](), tensor.name))
        return model


def is_apart(tensor: TensorProto) -> bool:
    """Whether an initializer has its numbers elsewhere."""
    return bool(tensor.data_location == TensorProto.EXTERNAL)


def location(tensor: TensorProto) -> str:
    """Where an initializer says that its numbers are."""
    return next((str(entry.value) for entry in tensor.external_data if entry.key == "location"), "")


def byte_size(tensor: TensorProto) -> int:
    """Bytes of a tensor's numbers."""
    return int(prod(tensor.dims)) * np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type)).itemsize


def pieces(values: np.ndarray) -> Iterator[bytes | memoryview]:
    """An array's bytes, a few at a time, so that a turned view is never copied as a whole."""
    if not values.ndim or not values.size:
        yield values.tobytes()
        return
    rows = max(1, _AT_ONCE // (values.nbytes // len(values)))
    for start in range(0, len(values), rows):
        yield np.ascontiguousarray(values[start : start + rows]).reshape(-1).view(np.uint8).data


def reference(name: str, shape: tuple[int, ...], data_type: int, where: str) -> TensorProto:
    """An initializer whose numbers are elsewhere."""
    tensor = TensorProto(name=name, dims=shape, data_type=data_type, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=where)
    return tensor


def opened(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which weights without numbers are inputs, so that it is complete: for tools that look at the graph."""
    copy = _copy(model)
    missing = [tensor for tensor in copy.graph.initializer if is_apart(tensor)]
    for tensor in missing:
        copy.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
        copy.graph.initializer.remove(tensor)
    return copy


def closed(model: onnx.ModelProto, like: onnx.ModelProto) -> onnx.ModelProto:
    """Undo `opened`, in place: the weights that `like` keeps elsewhere are initializers again."""
    missing = {tensor.name: tensor for tensor in like.graph.initializer if is_apart(tensor)}
    for value in [value for value in model.graph.input if value.name in missing]:
        model.graph.input.remove(value)
    model.graph.initializer.extend(missing.values())
    return model


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy
