"""What was made of an ONNX file is compared with the file: what differs is refused, what cannot be compared is told."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, TensorProto, helper
from onnx_tools import graph_of, i64, model_of, node, read, weights, written
from torch import Tensor

from graftkit.core.errors import SourceError
from graftkit.sources import onnx_compare
from graftkit.sources.onnx_operators import OPERATORS

ROWS = {"x": ("n", 6)}


def network(*, head: str = "Gemm") -> ModelProto:
    """Three nodes, the second of which a test may spoil."""
    nodes = [
        node("Gemm", ["x", "w"], ["h"], name="first"),
        node("Neg", ["h"], ["r"], name="turn"),
        node(head, ["r", "v"], ["y"], name="last"),
    ]
    return model_of(graph_of(nodes, weights(w=(6, 4), v=(4, 3)), ROWS))


def spoiled(monkeypatch: pytest.MonkeyPatch, kind: str, by: Callable[[Any], Any]) -> None:
    """Let an operator give something else."""
    right = OPERATORS[kind]
    monkeypatch.setitem(OPERATORS, kind, lambda call, *given: by(right(call, *given)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "by", [lambda y: y + 0.01, lambda y: y * 1.001, lambda y: y[:, :1], lambda y: y.flip(0), lambda y: y / 0]
)
def test_the_first_node_that_computes_something_else_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: Callable[[Tensor], Tensor]
) -> None:
    path = written(network(head="MatMul"), tmp_path)
    assert read(path).warnings == ()
    spoiled(monkeypatch, "Neg", by)
    if by(torch.ones(2, 4)).shape != (2, 4):  # what is behind it does not run then
        assert "it does not run on the inputs that were tried" in read(path).warnings[0]
        return
    with pytest.raises(SourceError, match=r"model.onnx computes something else from Neg \(node 'turn'\) on") as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_an_output_of_another_shape_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(model_of(graph_of([node("Neg", ["x"], ["y"], name="turn")], {}, ROWS)), tmp_path)
    spoiled(monkeypatch, "Neg", lambda y: y[:, :1])
    with pytest.raises(SourceError, match=r"from Neg \(node 'turn'\) on"):
        read(path)


def test_a_node_that_is_not_converted_is_named_when_it_runs(tmp_path: Path) -> None:
    nodes = [node("Resize", ["x", "", "by"], ["y"], name="up", mode="cubic", exclude_outside=1)]
    held = {"by": np.array([1, 1, 2, 2], np.float32)}
    path = written(model_of(graph_of(nodes, held, {"x": ("n", 3, "h", "w")})), tmp_path)
    with pytest.raises(SourceError, match=r"Resize \(node 'up'\) is not converted: it resizes by cubic"):
        read(path)


def test_rounding_that_adds_up_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sines of large numbers: the last bit decides what they are."""
    nodes = [node("Neg", ["x"], ["n"]), node("Mul", ["n", "far"], ["m"]), node("Sin", ["m"], ["y"])]
    path = written(model_of(graph_of(nodes, {"far": np.float32(1e5)}, ROWS)), tmp_path)
    spoiled(monkeypatch, "Neg", lambda y: y * (1 + 1e-6))
    (told,) = read(path).warnings
    assert "its output 'y' differs, though no operator does; rounding adds up in it" in told


def test_chance_is_no_fault(tmp_path: Path) -> None:
    """Dropout in training mode, and what nothing reads."""
    nodes = [
        node("Dropout", ["x", "half", "on"], ["y"], name="drop"),
        node("RandomNormal", [], ["unused"], shape=[2, 2]),
        node("Loop", ["far", "on"], ["v"], body=endless()),
    ]
    held = {"half": np.float32(0.5), "on": np.array(True), "far": np.array(2**62, np.int64)}
    assert read(written(model_of(graph_of(nodes, held, ROWS)), tmp_path)).warnings == (onnx_compare.EVALUATED,)


def endless() -> onnx.GraphProto:
    """The body of a loop that does nothing."""
    value = helper.make_tensor_value_info
    inputs = [value("i", TensorProto.INT64, []), value("c", TensorProto.BOOL, [])]
    nodes = [node("Identity", ["c"], ["again"]), node("Identity", ["i"], ["o"])]
    outputs = [value("again", TensorProto.BOOL, []), value("o", TensorProto.INT64, [])]
    return helper.make_graph(nodes, "body", inputs, outputs)


def test_whole_numbers_and_free_sizes_are_found(tmp_path: Path) -> None:
    nodes = [node("Gather", ["w", "ids"], ["e"]), node("Mul", ["e", "mask"], ["y"])]
    shapes = {"ids": ("n", "length"), "mask": ("n", "length", 1)}
    graph = graph_of(nodes, weights(w=(2, 4)), shapes, types={"ids": TensorProto.INT64})
    assert read(written(model_of(graph), tmp_path)).warnings == ()


def test_an_image_is_as_large_as_it_has_to_be(tmp_path: Path) -> None:
    nodes = [node("MaxPool", ["x"], ["p"], kernel_shape=[20, 20], strides=[20, 20]), node("Relu", ["p"], ["y"])]
    assert read(written(model_of(graph_of(nodes, {}, {"x": ("n", 3, "h", "w")})), tmp_path)).warnings == ()


def test_what_onnxruntime_does_not_take_is_told(tmp_path: Path) -> None:
    model = network()
    model.ir_version = 99
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    (told,) = read(tmp_path / "model.onnx").warnings
    assert told.startswith("it was not compared with onnxruntime: onnxruntime does not load it")
    assert "\n" not in told


def test_what_does_not_run_here_is_told(tmp_path: Path) -> None:
    graph = graph_of([node("Reshape", ["x", "sizes"], ["y"], name="view")], {"sizes": np.array([7, 13])}, ROWS)
    assert "it does not run on the inputs that were tried" in read(written(model_of(graph), tmp_path)).warnings[0]


def test_large_files_are_not_held_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_compare, "LARGEST", 100)
    spoiled(monkeypatch, "Neg", lambda y: y + 1)
    (told,) = read(written(network(), tmp_path)).warnings
    assert "it holds 0 MiB" in told


def test_weights_beside_the_file_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(network(), path, save_as_external_data=True, location="model.data", size_threshold=0)
    assert read(path).warnings == ()
    spoiled(monkeypatch, "Neg", lambda y: y + 1)
    with pytest.raises(SourceError, match="from Neg"):
        read(path)


@pytest.mark.parametrize(
    "nodes",
    [
        [node("NonZero", ["x"], ["i"]), node("Expand", ["x", "big"], ["k"]), node("ReduceSum", ["k"], ["y"])],
        [node("Expand", ["x", "big"], ["k"]), node("MatMul", ["k", "k"], ["y"])],
    ],
)
def test_what_costs_too_much_is_not_run(tmp_path: Path, nodes: list[Any]) -> None:
    model = model_of(graph_of(nodes, {"big": i64(2**14, 2**14)}, {"x": (1, 1)}))
    begun = time.monotonic()
    (told,) = [each for each in read(written(model, tmp_path)).warnings if "compared" in each]
    assert "it makes tensors of more than 256 MiB" in told
    assert time.monotonic() - begun < 5


def test_inputs_that_no_machine_could_hold_are_not_made(tmp_path: Path) -> None:
    graph = graph_of([node("Neg", ["x"], ["y"])], {}, {"x": ("n", 2**40)})
    assert "its inputs are too large for that" in read(written(model_of(graph), tmp_path)).warnings[0]


def test_half_precision_may_round_as_it_likes(tmp_path: Path) -> None:
    values = {name: array.astype(np.float16) for name, array in weights(w=(64, 64), v=(64, 64)).items()}
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Tanh", ["h"], ["t"]), node("MatMul", ["t", "v"], ["y"])]
    graph = graph_of(nodes, values, {"x": ("n", 64)}, types=dict.fromkeys("xy", TensorProto.FLOAT16))
    assert read(written(model_of(graph), tmp_path)).warnings == ()
