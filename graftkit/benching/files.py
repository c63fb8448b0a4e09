"""The files of a bench, what they cost by count, and what they are given."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx

from graftkit.contracts import Feed
from graftkit.core.benches import Subject
from graftkit.core.errors import ExportError
from graftkit.folding import graphs_of, open_onnx
from graftkit.folding.written import is_apart, location
from graftkit.inspection import inspect_onnx
from graftkit.reopening import open_given, put_back
from graftkit.run_folder import SHAPES
from graftkit.shipping import export


@dataclass(frozen=True, eq=False)
class File:
    """A file to be measured.

    Attributes:
        name: what it is called.
        path: where it is.
        outline: what is in it, without large weights.
        sizes: what free sizes of its inputs were in the example it was traced with, by name, where that is known.
    """

    name: str
    path: Path
    outline: onnx.ModelProto
    sizes: Mapping[str, int] = field(default_factory=dict)

    def subject(self, feed: Feed) -> Subject:
        """What it costs by count, for these inputs."""
        counted = inspect_onnx(_at(self.outline, feed), {}, name=self.name)
        graph = self.outline.graph
        beside = {location(tensor) for tensor in graph.initializer if is_apart(tensor)}
        size = self.path.stat().st_size + sum((self.path.parent / name).stat().st_size for name in beside)
        nodes = sum(len(inner.node) for inner in graphs_of(graph))
        return Subject(self.name, size, counted.parameters, counted.macs, nodes)

    def branches(self) -> bool:
        """Whether it has an If, so that not every run computes all of it."""
        return any(node.op_type == "If" for graph in graphs_of(self.outline.graph) for node in graph.node)


def read_file(path: Path, name: str = "") -> File:
    """An ONNX file. Raises ExportError."""
    if not path.is_file():
        raise ExportError(f"{path} is neither an ONNX file nor a run's folder")
    opened = open_onnx(path)
    return File(name or str(path), path, opened.outline)


def of_run(path: Path, folder: Path, *, trust: bool, allow: tuple[str, ...]) -> tuple[File, ...]:
    """The model that a run was given and what it shipped, both written anew into `folder`, at one layout.

    The run's control is the network of the given model with other weights, so it costs the same.

    Raises RunError, SourceError, ExportError.
    """
    where = Path(tempfile.mkdtemp(dir=folder))
    model, _, _ = open_given(path, trust=trust, allow=allow, pruned=False)
    ports = model.traced.signature.inputs
    pairs = [
        pair for p, x in zip(ports, model.traced.inputs, strict=True) for pair in zip(p.shape, x.shape, strict=True)
    ]
    sizes = {name: size for name, size in pairs if isinstance(name, str)}
    pruned = (path / SHAPES).is_file()
    given = read_file(export(model, where / "given.onnx"), f"{path}: {'given' if pruned else 'given = control'}")
    if pruned:
        model, _, _ = open_given(path, trust=trust, allow=allow)
    put_back(model, path)
    plain = "pruned" if pruned else "shipped as given"
    name = "grafted" if model.plan.grafts else plain
    shipped = read_file(export(model, where / "shipped.onnx"), f"{path}: {name}")
    return replace(given, sizes=sizes), replace(shipped, sizes=sizes)


def feed_of(files: Sequence[File], *, rows: int, sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Inputs that all of the files take: normal numbers, and ones where an input has whole numbers or truth values.

    Args:
        files: they have to take the same inputs.
        rows: how much a free first dimension is.
        sizes: how much other free dimensions are, by name; those that a run's example had are known.

    Raises ExportError where a size is not known, or the files take different inputs.
    """
    known = {name: size for file in files for name, size in file.sizes.items()}
    free = {dim.dim_param for file in files for value in _inputs(file) for dim in value.type.tensor_type.shape.dim}
    for name in sizes:
        if name not in free:
            there = ", ".join(sorted(free - {""})) or "none"
            raise ExportError(f"no input has a free size {name!r}; there are {there}")
    feeds = [_feed(file, rows, known, sizes) for file in files]
    for file, feed in zip(files[1:], feeds[1:], strict=True):
        if _told(feed) != _told(feeds[0]):
            raise ExportError(
                f"{file.name} takes {_told(feed)}, but {files[0].name} {_told(feeds[0])}: only files with the same"
                " inputs can be compared"
            )
    return feeds[0]


def _inputs(file: File) -> list[onnx.ValueInfoProto]:
    constants = {tensor.name for tensor in file.outline.graph.initializer}
    return [value for value in file.outline.graph.input if value.name not in constants]


def _feed(file: File, rows: int, known: Mapping[str, int], sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    found = {}
    for value in _inputs(file):
        kind = value.type.tensor_type
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)) if kind.elem_type else np.dtype(object)
        if dtype.kind == "O":
            raise ExportError(f"{file.name} takes {value.name}, which is no tensor of numbers: it cannot be measured")
        shape = [_size(file, value.name, at, dim, rows, known, sizes) for at, dim in enumerate(kind.shape.dim)]
        numbers = random.standard_normal(shape) if dtype.kind not in "iub" else np.ones(shape)
        found[value.name] = numbers.astype(dtype)
    return found


def _size(
    file: File,
    name: str,
    at: int,
    dim: onnx.TensorShapeProto.Dimension,
    rows: int,
    known: Mapping[str, int],
    sizes: Mapping[str, int],
) -> int:
    """What the user said, what the file says, the rows of a first dimension, or what the example had."""
    if dim.dim_param in sizes:
        return sizes[dim.dim_param]
    if dim.dim_value > 0:
        return int(dim.dim_value)
    if at == 0:
        return rows
    if dim.dim_param in known:
        return known[dim.dim_param]
    free = dim.dim_param or f"dimension {at}"
    how = f"say how much it is with --size {free}=NUMBER" if dim.dim_param else "give it a name or a number first"
    raise ExportError(f"{file.name} leaves {free} of input {name} free; {how}")


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
