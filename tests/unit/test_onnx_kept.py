"""What an ONNX file says beside its operators: sizes that it fixes, files beside it, weights at several places."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx_tools import assert_same, check, expected, graph_of, i64, model_of, node, outputs_of, read, weights, written

from graftkit import api
from graftkit.core.errors import TraceError
from graftkit.sources.onnx_batch import KEPT

# ── sizes ────────────────────────────────────────────────────────────────────────────────────────


def convolving(*shape: int | str) -> onnx.ModelProto:
    """A convolution and a mean over whatever size there is."""
    nodes = [
        node("Conv", ["x", "w"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        node("GlobalAveragePool", ["c"], ["p"]),
        node("Flatten", ["p"], ["f"]),
        node("Gemm", ["f", "v"], ["y"], name="head"),
    ]
    return model_of(graph_of(nodes, weights(w=(4, 3, 3, 3), v=(4, 2)), {"x": shape}))


@pytest.mark.parametrize(
    ("shape", "kept"),
    [
        (("n", 3, 8, 8), ("n", 3, 8, 8)),
        ((1, 3, 8, 8), ("batch", 3, 8, 8)),
        (("n", 3, 8, "wide"), ("n", 3, 8, "wide")),
        (("n", 3, "high", "wide"), ("n", 3, "high", "wide")),
    ],
)
def test_sizes_stay_fixed_or_free_as_in_the_file(
    tmp_path: Path, shape: tuple[int | str, ...], kept: tuple[int | str, ...]
) -> None:
    traced = api.trace(read(written(convolving(*shape), tmp_path)), torch.randn(2, 3, 8, 8))
    assert traced.signature.inputs[0].shape == kept
    api.export(api.graft(traced), tmp_path / "ours.onnx")
    (given,) = onnx.load(tmp_path / "ours.onnx").graph.input
    assert tuple(size.dim_param or size.dim_value for size in given.type.tensor_type.shape.dim) == kept


def test_a_size_that_the_file_does_not_take_is_refused(tmp_path: Path) -> None:
    loaded = read(written(convolving("n", 3, 8, 8), tmp_path))
    with pytest.raises(TraceError, match=r"model takes x: float32 \[n, 3, 8, 8\], and was given \[2, 3, 9, 8\]: give"):
        api.trace(loaded, torch.randn(2, 3, 9, 8))


def test_a_batch_that_does_not_fit_is_tried_without_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A constant with a row for each of the batch: torch logged the traceback of the trial."""
    nodes = [
        node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        node("Add", ["c", "k"], ["a"]),
        node("Reshape", ["a", "to"], ["y"]),
    ]
    held = weights(w=(4, 3, 3, 3), k=(2, 4, 1, 1)) | {"to": i64(2, -1)}
    path = written(model_of(graph_of(nodes, held, {"x": (2, 3, 4, 4)})), tmp_path)
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    logger.addHandler(caplog.handler)
    try:
        assert read(path).warnings == (KEPT.format(rows=2),)
    finally:
        logger.removeHandler(caplog.handler)
    assert caplog.records == []


# ── files ────────────────────────────────────────────────────────────────────────────────────────


def beside(folder: Path, numbers: np.ndarray) -> Path:
    """A model whose weight lies in a file beside it."""
    model = model_of(graph_of([node("Gemm", ["x", "w"], ["y"])], {"w": numbers}, {"x": ("n", 6)}))
    path = folder / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="model.data", size_threshold=0)
    return path


def test_a_data_file_that_changes_is_another_source(tmp_path: Path) -> None:
    path = beside(tmp_path, np.ones((6, 3), np.float32))
    before = read(path).provenance["sha256"]
    assert read(path).provenance["sha256"] == before
    (tmp_path / "model.data").write_bytes(np.zeros((6, 3), np.float32).tobytes())
    assert read(path).provenance["sha256"] != before


# ── weights at several places ────────────────────────────────────────────────────────────────────


def test_a_weight_read_in_both_directions_stays_one(tmp_path: Path) -> None:
    """Down by the transposed matrix, and up again by the matrix itself, as an autoencoder with one weight."""
    nodes = [
        node("Transpose", ["w"], ["t"], perm=[1, 0]),
        node("MatMul", ["x", "t"], ["h"], name="down"),
        node("Relu", ["h"], ["r"]),
        node("MatMul", ["r", "w"], ["y"], name="up"),
    ]
    loaded = check(model_of(graph_of(nodes, weights(w=(3, 6)), {"x": ("n", 6)})), tmp_path)
    module: Any = loaded.model
    assert [name for name, _ in module.named_parameters()] == ["down.weight"]
    traced = api.trace(loaded, torch.randn(2, 6))
    assert [site.key for site in traced.sites] == ["down", "up"]
    assert len({site.weight for site in traced.sites}) == 1
    model = api.graft(traced)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model.train()(torch.ones(2, 6)).square().sum().backward()
        optimizer.step()
    api.export(model, tmp_path / "ours.onnx")
    x, weight = torch.randn(4, 6), module.down.weight.detach()
    right = (x @ weight.t()).relu() @ weight
    assert_same(expected(tmp_path / "ours.onnx", {traced.signature.input_names[0]: x.numpy()}), [right.numpy()])


@pytest.mark.parametrize("first", ["a", "b", "c"])
def test_axes_in_any_order_are_read_from_one_weight(tmp_path: Path, first: str) -> None:
    orders = {"a": [0, 1, 2], "b": [2, 0, 1], "c": [2, 1, 0]}
    orders = {first: orders.pop(first), **orders}
    nodes = [node("Transpose", ["w"], [name], perm=order) for name, order in orders.items()]
    nodes += [node("MatMul", ["x", name], [f"y{name}"]) for name in orders]
    outputs = [f"y{name}" for name in orders]
    path = written(model_of(graph_of(nodes, weights(w=(4, 4, 4)), {"x": ("n", 5, 4)}, outputs)), tmp_path)
    inputs = {"x": np.random.default_rng(0).random((4, 5, 4), np.float32)}
    module: Any = read(path).model
    assert len(list(module.parameters())) == 1
    assert_same(outputs_of(module, inputs), expected(path, inputs))
