"""What an ONNX file says beside its operators: the sizes that it fixes, the files that hold its tensors."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx_tools import graph_of, i64, model_of, node, read, weights, written

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
