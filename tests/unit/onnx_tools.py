"""Small ONNX models for tests, and what onnxruntime makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from torch import nn
from torch.export import Dim

from graftkit.contracts import LoadedModel, SourceRequest
from graftkit.sources.onnx_model import OnnxModel

node = helper.make_node


def weights(seed: int = 0, /, **shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Random float32 arrays by name."""
    random = np.random.default_rng(seed)
    return {name: random.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}


def i64(*values: int) -> np.ndarray:
    """A row of whole numbers."""
    return np.array(values, np.int64)


def graph_of(
    nodes: Sequence[NodeProto],
    held: Mapping[str, np.ndarray],
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Sequence[str] = ("y",),
    types: Mapping[str, int] | None = None,
) -> GraphProto:
    """A graph; inputs are float32 unless `types` says otherwise, and so are outputs, whose sizes nobody tells."""
    kinds = types or {}
    return helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info(n, kinds.get(n, TensorProto.FLOAT), shape) for n, shape in inputs.items()],
        [helper.make_tensor_value_info(n, kinds.get(n, TensorProto.FLOAT), None) for n in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in held.items()],
    )


def model_of(graph: GraphProto, opset: int = 20, **more: object) -> ModelProto:
    """A model of a graph."""
    ir = 11 if opset > 22 else 10 if opset > 20 else 8 if opset > 10 else 4
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir, **more)


def written(model: ModelProto, folder: Path, name: str = "model.onnx") -> Path:
    """The path of the model as a file."""
    onnx.save(model, folder / name)
    return folder / name


def read(path: Path) -> LoadedModel:
    """What graftkit makes of it."""
    return OnnxModel().load(SourceRequest(str(path)))


def expected(path: Path, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """What onnxruntime makes of it."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, dict(inputs))  # type: ignore[no-any-return]


def outputs_of(module: nn.Module, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """What a module gives for arrays."""
    with torch.no_grad():
        found = module(*(torch.from_numpy(array) for array in inputs.values()))
    return [tensor.numpy() for tensor in (found if isinstance(found, tuple | list) else (found,))]


def assert_same(found: Sequence[np.ndarray], right: Sequence[np.ndarray]) -> None:
    """The same outputs, of the same types and shapes."""
    assert len(found) == len(right)
    for ours, theirs in zip(found, right, strict=True):
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def batch(shape: Sequence[int | str], rows: int, kind: int = TensorProto.FLOAT) -> np.ndarray:
    """Random numbers for an input whose free sizes take `rows`."""
    sizes = [size if isinstance(size, int) else rows for size in shape]
    random = np.random.default_rng(rows)
    if kind == TensorProto.FLOAT:
        return random.normal(size=sizes).astype(np.float32)
    return random.integers(0, 4, sizes).astype(np.int64)


def traced(module: nn.Module, inputs: Mapping[str, np.ndarray], free: Sequence[bool]) -> torch.export.ExportedProgram:
    """The module through torch.export, with a free first size where `free` says so."""
    tensors = tuple(torch.from_numpy(array) for array in inputs.values())
    sizes = tuple({0: Dim.DYNAMIC} if is_free else None for is_free in free)
    return torch.export.export(module, tensors, dynamic_shapes=sizes)


def check(model: ModelProto, folder: Path) -> LoadedModel:
    """Read it, and compare with onnxruntime: as it is, and traced, at two and at five rows where the batch is free."""
    path = written(model, folder)
    loaded = read(path)
    held = {tensor.name for tensor in model.graph.initializer}
    values = [value for value in model.graph.input if value.name not in held]
    kinds = {value.name: value.type.tensor_type.elem_type for value in values}
    shapes = {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}
    free = [bool(shape) and isinstance(shape[0], str) for shape in shapes.values()]
    first, other = ({n: batch(shape, rows, kinds[n]) for n, shape in shapes.items()} for rows in (2, 5))
    for inputs in (first, other):
        assert_same(outputs_of(loaded.model, inputs), expected(path, inputs))  # type: ignore[arg-type]
    program = traced(loaded.model, first, free)  # type: ignore[arg-type]
    assert_same(outputs_of(program.module(check_guards=False), other), expected(path, other))
    return loaded
