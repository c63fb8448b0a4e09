"""Every runtime loads a file, runs any batch, and refuses in one line what it cannot load."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from graftkit.core.errors import ExportError, RuntimeMissingError
from graftkit.runtimes import RUNTIMES

WEIGHT = np.arange(12, dtype=np.float32).reshape(4, 3) - 6


def model_of(inputs: int = 1, *, operator: str = "MatMul", outputs: tuple[str, ...] = ("y",)) -> bytes:
    """X times a constant, for one input or for each of several, summed."""
    names = [f"x{index}" for index in range(inputs)]
    nodes = [helper.make_node("Sum", names, ["s"]), helper.make_node(operator, ["s", "w"], ["y"])]
    nodes.append(helper.make_node("Relu", ["y"], ["z"]))
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ("n", 4)) for name in names],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ("n", 3)) for name in outputs],
        [numpy_helper.from_array(WEIGHT, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("name", RUNTIMES)
@pytest.mark.parametrize("rows", [1, 2, 7])
def test_it_computes(name: str, rows: int) -> None:
    assert RUNTIMES[name].name == name
    inputs = np.random.RandomState(rows).randn(rows, 4).astype(np.float32)
    for threads in (None, 1):
        (found,) = RUNTIMES[name].open(model_of(), threads=threads)(inputs)
        np.testing.assert_allclose(found, inputs @ WEIGHT, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", RUNTIMES)
def test_it_gives_all_outputs_in_order(name: str) -> None:
    inputs = np.random.RandomState(0).randn(2, 4).astype(np.float32)
    rectified, plain = RUNTIMES[name].open(model_of(outputs=("z", "y")))(inputs)
    np.testing.assert_allclose(rectified, np.maximum(plain, 0), atol=1e-6)
    assert (plain < 0).any()


@pytest.mark.parametrize("name", RUNTIMES)
@pytest.mark.parametrize("content", [b"not onnx", model_of()[:-40], model_of(operator="NoSuchOperator"), model_of(2)])
def test_it_refuses_what_it_cannot_run(name: str, content: bytes) -> None:
    with pytest.raises(ExportError) as caught:
        RUNTIMES[name].open(content)
    assert "\n" not in str(caught.value)


def test_an_unknown_runtime_is_refused() -> None:
    with pytest.raises(RuntimeMissingError, match=r"unknown runtime 'onnxruntim'; there are onnxruntime"):
        RUNTIMES.find("onnxruntim")


def test_a_file_of_two_inputs_says_so() -> None:
    assert len(onnx.load_model_from_string(model_of(2)).graph.input) == 2
    for runtime in RUNTIMES.values():
        with pytest.raises(ExportError, match="the file has 2 inputs"):
            runtime.open(model_of(2))
