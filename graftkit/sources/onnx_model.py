"""The `onnx` format: a trained network in an ONNX file, as a live module whose weights can be trained."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from onnx import ModelProto, ValueInfoProto

from graftkit.contracts import LoadedModel, SourceRequest
from graftkit.core.signature import Port, Signature
from graftkit.sources.files import looks_like_onnx, sha256_of_all
from graftkit.sources.onnx_batch import free_batch
from graftkit.sources.onnx_build import Builder
from graftkit.sources.onnx_compare import Conversion, compare
from graftkit.sources.onnx_normalise import inlined, normalise
from graftkit.sources.onnx_safety import checked, opset
from graftkit.sources.onnx_tensors import DTYPES

_OURS = "graftkit."  # what graftkit itself wrote into a file says nothing of the model


@dataclass(frozen=True)
class OnnxModel:
    """`.onnx`: checked, brought into one form, and built from torch's operators; nothing in it can run code."""

    name: ClassVar[str] = "onnx"

    def recognises(self, request: SourceRequest, head: bytes) -> bool:
        return bool(head) and looks_like_onnx(Path(request.spec))

    def load(self, request: SourceRequest) -> LoadedModel:
        path = Path(request.spec)
        model, tensors = checked(path)
        model = inlined(model, str(path))
        builder = Builder(normalise(model, tensors, opset(model)), str(path))
        module, taken = builder.build().eval(), signature_of(model)
        sha256 = sha256_of_all([path, *tensors.files])
        provenance = {"path": request.spec, "format": self.name, "sha256": sha256, "trust": request.trust}
        told = {_text(entry.key): _text(entry.value) for entry in model.metadata_props}
        metadata = {key: value for key, value in told.items() if not key.startswith(_OURS)}
        signature, notes = free_batch(module, taken)
        apart = compare(Conversion(path, model, module, builder.env, taken, tensors.files))
        return LoadedModel(module, provenance, path.stem, (*notes, *apart), signature, metadata)


def _text(found: str | bytes) -> str:
    """What protobuf gives as bytes where it is no UTF-8."""
    return found if isinstance(found, str) else found.decode("utf-8", errors="replace")


def signature_of(model: ModelProto) -> Signature:
    """Names, types and sizes as the file says them; a free first size without a name is the batch."""
    held = {tensor.name for tensor in model.graph.initializer}
    inputs = tuple(_port(value) for value in model.graph.input if value.name not in held)
    outputs = tuple(_port(value) for value in model.graph.output)
    return Signature(inputs, outputs, outputs[0].name)


def _port(value: ValueInfoProto) -> Port:
    tensor = value.type.tensor_type
    return Port(value.name, str(DTYPES[tensor.elem_type]).removeprefix("torch."), tuple(_sizes(value)))


def _sizes(value: ValueInfoProto) -> Iterator[int | str]:
    for index, size in enumerate(value.type.tensor_type.shape.dim):
        if size.HasField("dim_value") and size.dim_value > 0:
            yield size.dim_value
        else:
            yield size.dim_param or (f"size_{index}" if index else "batch")
