"""Opens an ONNX file: its graph, without large weights that lie beside it, and what graftkit wrote into it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import onnx

from graftkit.core.errors import ExportError, shown
from graftkit.core.signature import Port, Signature
from graftkit.folding.order import in_order
from graftkit.folding.written import LARGE, is_apart

PREFIX = "graftkit."


@dataclass(frozen=True, eq=False)
class OnnxFile:
    """A model that can be run.

    Attributes:
        content: what runtimes load.
        outline: what is in it, without the numbers of large weights.
        folder: where its weights are, if they lie beside it.
    """

    content: bytes | Path
    outline: onnx.ModelProto
    folder: Path | None

    @property
    def rows(self) -> int | None:
        """How many rows it takes, None where that is free."""
        constants = {tensor.name for tensor in self.outline.graph.initializer}
        inputs = (value for value in self.outline.graph.input if value.name not in constants)
        sizes = [value.type.tensor_type.shape.dim for value in inputs]
        return next((int(dims[0].dim_value) or None for dims in sizes if dims), None)

    def complete(self) -> onnx.ModelProto:
        """The model again, with the numbers that are in the file itself."""
        if isinstance(self.content, bytes):
            return onnx.load_model_from_string(self.content)
        return onnx.load(str(self.content), load_external_data=False)

    def signature(self) -> Signature:
        """What graftkit wrote about inputs and outputs; of another file the names, its first output counting."""
        facts = read_description(self.outline).get("signature")
        if facts is None:
            graph = self.outline.graph
            constants = {tensor.name for tensor in graph.initializer}
            inputs = tuple(Port(value.name, "", ()) for value in graph.input if value.name not in constants)
            outputs = tuple(Port(value.name, "", ()) for value in graph.output)
            return Signature(inputs, outputs, outputs[0].name)
        try:
            return Signature.from_json(facts)
        except (KeyError, TypeError) as error:
            raise ExportError(f"the ONNX file's metadata '{PREFIX}signature' is broken ({error!r})") from None


def open_onnx(file: str | Path | onnx.ModelProto) -> OnnxFile:
    """An ONNX file, or a model in memory with all of its weights. Raises ExportError."""
    if isinstance(file, onnx.ModelProto):
        return OnnxFile(file.SerializeToString(), file, None)
    proto = read_onnx(Path(file))
    apart = any(is_apart(tensor) for tensor in proto.graph.initializer)
    return OnnxFile(Path(file), _outline(proto), Path(file).parent if apart else None)


def _outline(model: onnx.ModelProto) -> onnx.ModelProto:
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) > LARGE:
            tensor.ClearField("raw_data")
    copy = onnx.ModelProto()  # the old message keeps its memory for as long as it lives
    copy.CopyFrom(model)
    return copy


def read_onnx(path: Path) -> onnx.ModelProto:
    """An ONNX file as a proto, checked, with large weights left beside it. Raises ExportError.

    Runtimes take two things that the standard forbids, and that tools write: nodes that stand before what they read,
    which are put in order, and outputs of which no number of axes is told. Both are read where all weights are inside.
    """
    try:
        proto = onnx.load(str(path), load_external_data=False)
        try:
            onnx.checker.check_model(str(path))
        except onnx.checker.ValidationError:
            apart = any(is_apart(tensor) for tensor in proto.graph.initializer)  # which is checked with the file alone
            if apart or not in_order(proto.graph):
                raise
            onnx.checker.check_model(_with_shapes(proto))
    except Exception as error:  # protobuf, onnx and the file system each have their own
        first = " ".join(str(error).split()) or "no reason given"
        raise ExportError(f"{path} is not a readable ONNX file: {shown(first, 200)}") from None
    return proto


def numbers_in(model: onnx.ModelProto) -> int:
    """How many weights a file holds: what is whole, such as sizes and places, is none."""
    kinds = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
    return sum(prod(tensor.dims) for tensor in model.graph.initializer if tensor.data_type in kinds)


def _with_shapes(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose outputs all have a shape, for the checker, which asks for one."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for value in copy.graph.output:
        if value.type.HasField("tensor_type") and not value.type.tensor_type.HasField("shape"):
            value.type.tensor_type.shape.SetInParent()
    return copy


def read_description(model: onnx.ModelProto) -> dict[str, Any]:
    """What `describe` wrote, by name; empty for a file graftkit did not write. Raises ExportError if it is broken."""
    facts: dict[str, Any] = {}
    for entry in model.metadata_props:
        name = entry.key.removeprefix(PREFIX)
        if name == entry.key:
            continue
        if not entry.value.startswith(("{", "[")):
            facts[name] = entry.value
            continue
        try:
            facts[name] = json.loads(entry.value)
        except (ValueError, RecursionError) as error:
            said = str(error)[:200]
            raise ExportError(f"the ONNX file's metadata {entry.key[:80]!r} is not JSON: {said}") from None
    return facts
