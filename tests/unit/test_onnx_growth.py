"""What grows while an ONNX file is read: functions, the numbers that shapes are computed from, the trial of a batch."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import helper, numpy_helper
from onnx_tools import graph_of, i64, model_of, node, read, written

from graftkit.core.errors import SourceError


def test_functions_that_repeat_a_tensor_are_refused(tmp_path: Path) -> None:
    """Inlining copies a function's tensors at every call."""
    body = [
        node("Constant", [], ["k"], value=numpy_helper.from_array(np.zeros(2**18, np.float32))),
        node("Relu", ["a"], ["b"]),
    ]
    made = helper.make_function("own", "f", ["a"], ["b"], body, [helper.make_opsetid("", 20)])
    steps = [node("f", [f"v{i}"], [f"v{i + 1}"], domain="own") for i in range(1000)]
    steps[0].input[0], steps[-1].output[0] = "x", "y"
    model = model_of(graph_of(steps, {}, {"x": ("n", 4)}), functions=[made])
    model.opset_import.append(helper.make_opsetid("own", 1))
    with pytest.raises(SourceError, match="would grow to"):
        read(written(model, tmp_path))


FIXED = {"x": (2, 4)}
GROWING = {
    "numbers that double": [node("Concat", ["s", "s"], ["n0"], axis=0)]
    + [node("Concat", [f"n{i}", f"n{i}"], [f"n{i + 1}"], axis=0) for i in range(40)],
    "numbers in a table": [node("Shape", ["x"], ["n0"])]
    + [
        each
        for i in range(0, 40, 5)
        for each in (
            node("Unsqueeze", [f"n{i}", "zero"], [f"n{i + 1}"]),
            node("Unsqueeze", [f"n{i}", "one"], [f"n{i + 2}"]),
            node("Add", [f"n{i + 1}", f"n{i + 2}"], [f"n{i + 3}"]),
            node("Reshape", [f"n{i + 3}", "flat"], [f"n{i + 4}"]),
            node("Concat", [f"n{i + 4}", f"n{i + 4}"], [f"n{i + 5}"], axis=0),
        )
    ],
    "a number that is squared": [node("Mul", ["s", "s"], ["n0"])]
    + [node("Mul", [f"n{i}", f"n{i}"], [f"n{i + 1}"]) for i in range(40)],
    "a power": [node("Pow", ["s", "large"], ["n0"])]
    + [node("Pow", [f"n{i}", "large"], [f"n{i + 1}"]) for i in range(40)],
}


@pytest.mark.parametrize("name", GROWING)
def test_shapes_are_not_computed_without_end(tmp_path: Path, name: str) -> None:
    """A file with a fixed batch is run while it is read."""
    values = {"zero": i64(0), "one": i64(1), "flat": i64(-1), "large": i64(10**12)}
    end = [node("ReduceSum", ["n40"], ["t"]), node("Cast", ["t"], ["u"], to=1), node("Add", ["x", "u"], ["y"])]
    nodes = [node("Shape", ["x"], ["s"]), *GROWING[name], *end]
    began = time.process_time()
    loaded = read(written(model_of(graph_of(nodes, values, FIXED)), tmp_path))
    with pytest.raises(ValueError, match="computes a shape from"):
        loaded.model(torch.ones(2, 4))
    assert time.process_time() - began < 5


def test_a_trial_run_does_not_take_hours(tmp_path: Path) -> None:
    """Large products, one after the other, of a file whose batch is fixed."""
    nodes = [node("Expand", ["x", "wide"], ["m0"])]
    nodes += [node("MatMul", [f"m{i}", f"m{i}"], [f"m{i + 1}"]) for i in range(50)]
    nodes += [node("ReduceMax", ["m50"], ["t"]), node("Add", ["x", "t"], ["y"])]
    began = time.process_time()
    loaded = read(written(model_of(graph_of(nodes, {"wide": i64(16_000, 16_000)}, {"x": (1, 1)})), tmp_path))
    assert time.process_time() - began < 5
    assert "fixes its batch size" in loaded.warnings[0]
