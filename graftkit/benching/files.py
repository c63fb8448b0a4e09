"""The files of a bench, what they cost by count, and what they are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx

from graftkit.core.benches import Subject
from graftkit.core.errors import ExportError
from graftkit.folding import open_onnx
from graftkit.folding.written import byte_size, is_apart
from graftkit.inspection import inspect_onnx
from graftkit.reopening import open_given, put_back
from graftkit.shipping import export

Feed = Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class File:
    """A file to be measured.

    Attributes:
        name: what it is called.
        path: where it is.
        content: what runtimes load.
        outline: what is in it, without large weights.
        sizes: what free sizes of its inputs were in the example it was traced with, by name, where that is known.
    """

    name: str
    path: Path
    content: bytes | Path
    outline: onnx.ModelProto
    sizes: Mapping[str, int] = field(default_factory=dict)

    def subject(self, feed: Feed) -> Subject:
        """What it costs by count, for these inputs."""
        counted = inspect_onnx(_at(self.outline, feed), {}, name=self.name)
        graph = self.outline.graph
        beside = sum(byte_size(tensor) for tensor in graph.initializer if is_apart(tensor))
        return Subject(self.name, self.path.stat().st_size + beside, counted.parameters, counted.macs, len(graph.node))


def read_file(path: Path, name: str = "") -> File:
    """An ONNX file. Raises ExportError."""
    if not path.is_file():
        raise ExportError(f"{path} is neither an ONNX file nor a run's folder")
    opened = open_onnx(path)
    return File(name or str(path), path, opened.content if opened.folder else path, opened.outline)


def of_run(path: Path, folder: Path, *, trust: bool, allow: tuple[str, ...]) -> tuple[File, ...]:
    """The model that a run was given and what it shipped, both written anew into `folder`, at one layout.

    The run's control is the network of the given model with other weights, so it costs the same.

    Raises RunError, SourceError, ExportError.
    """
    model, _, _ = open_given(path, trust=trust, allow=allow)
    ports = model.traced.signature.inputs
    pairs = [
        pair for p, x in zip(ports, model.traced.inputs, strict=True) for pair in zip(p.shape, x.shape, strict=True)
    ]
    sizes = {name: size for name, size in pairs if isinstance(name, str)}
    given = read_file(export(model, folder / f"{path.name}-given.onnx"), f"{path}: given")
    put_back(model, path)
    grafted = read_file(export(model, folder / f"{path.name}-grafted.onnx"), f"{path}: grafted")
    return replace(given, sizes=sizes), replace(grafted, sizes=sizes)


def feed_of(files: Sequence[File], *, rows: int, sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Inputs that all of the files take: normal numbers, and ones where an input has whole numbers or truth values.

    Args:
        files: they have to take the same inputs.
        rows: how much a free first dimension is.
        sizes: how much other free dimensions are, by name; those that a run's example had are known.

    Raises ExportError where a size is not known, or the files take different inputs.
    """
    known = {name: size for file in files for name, size in file.sizes.items()} | dict(sizes)
    feeds = [_feed(file, rows, known) for file in files]
    for file, feed in zip(files[1:], feeds[1:], strict=True):
        if _told(feed) != _told(feeds[0]):
            raise ExportError(
                f"{file.name} takes {_told(feed)}, but {files[0].name} {_told(feeds[0])}: only files with the same"
                " inputs can be compared"
            )
    return feeds[0]


def _feed(file: File, rows: int, sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    constants = {tensor.name for tensor in file.outline.graph.initializer}
    found = {}
    for value in file.outline.graph.input:
        if value.name in constants:
            continue
        kind = value.type.tensor_type
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))
        shape = [_size(file, value.name, at, dim, rows, sizes) for at, dim in enumerate(kind.shape.dim)]
        numbers = random.standard_normal(shape) if dtype.kind not in "iub" else np.ones(shape)
        found[value.name] = numbers.astype(dtype)
    return found


def _size(
    file: File, name: str, at: int, dim: onnx.TensorShapeProto.Dimension, rows: int, sizes: Mapping[str, int]
) -> int:
    if dim.HasField("dim_value"):
        return int(dim.dim_value)
    if at == 0:
        return rows
    if dim.dim_param in sizes:
        return sizes[dim.dim_param]
    free = dim.dim_param or f"dimension {at}"
    raise ExportError(f"{file.name} leaves {free} of input {name} free; say how much it is with --size {free}=NUMBER")


def _told(feed: Feed) -> str:
    return ", ".join(f"{name} {list(values.shape)} of {values.dtype}" for name, values in feed.items()) or "nothing"


def _at(model: onnx.ModelProto, feed: Feed) -> onnx.ModelProto:
    """The model with its inputs' sizes fixed, to be counted."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    del fixed.graph.value_info[:]
    for value in fixed.graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim, feed.get(value.name, np.empty(0)).shape, strict=False):
            dim.dim_value = size
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")
    return fixed
