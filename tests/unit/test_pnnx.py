"""What pnnx is given in place of reductions over one axis: it says the same, and ncnn then does, too."""

from __future__ import annotations

import os

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from graftkit.core.errors import ExportError, RuntimeMissingError
from graftkit.runtimes import RUNTIMES
from graftkit.runtimes.pnnx import spelled

REDUCTIONS = ("ReduceMean", "ReduceSum", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSumExp")
Sizes = tuple[int | str, ...]


def reducing(operator: str, sizes: Sizes, axis: int, *, keepdims: int | None = 1, constant: bool = False) -> bytes:
    """Y is a reduction of the rectified x; the axis is an initializer, or the constant of a node."""
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [axis])
    options = {} if keepdims is None else {"keepdims": keepdims}
    nodes = [helper.make_node("Relu", ["x"], ["r"]), helper.make_node(operator, ["r", "axes"], ["y"], **options)]
    if constant:
        nodes.insert(0, helper.make_node("Constant", [], ["axes"], value=axes))
    left = list(sizes)
    left[axis : len(sizes) if axis == -1 else axis + 1] = [1] if keepdims != 0 else []
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", sizes), ("y", left))]
    graph = helper.make_graph(nodes, "reducing", ports[:1], ports[1:], [] if constant else [axes])
    opset = [helper.make_opsetid("", 20)]
    return bytes(helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString())


def said(runtime: str, content: bytes, rows: np.ndarray) -> np.ndarray:
    session = RUNTIMES[runtime].open(content, threads=1)
    try:
        return session({"x": rows})[0]
    finally:
        session.close()


def positive(*sizes: int) -> np.ndarray:
    return (np.random.RandomState(0).rand(*sizes) + 0.5).astype(np.float32)


@given(st.data())
def test_it_says_the_same(data: st.DataObject) -> None:
    sizes = tuple(data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=5)))
    axis = data.draw(st.integers(-len(sizes), len(sizes) - 1))
    keepdims, constant = data.draw(st.sampled_from([None, 0, 1])), data.draw(st.booleans())
    content = reducing(data.draw(st.sampled_from(REDUCTIONS)), sizes, axis, keepdims=keepdims, constant=constant)
    other = spelled(content)
    onnx.checker.check_model(onnx.load_model_from_string(other), full_check=True)
    rows = positive(*sizes)
    np.testing.assert_allclose(said("onnxruntime", other, rows), said("onnxruntime", content, rows), rtol=1e-6)
    numbers = {t.name: list(t.int64_data) for t in onnx.load_model_from_string(other).graph.initializer}
    if len(sizes) < 4 or sorted(sizes[:axis] + sizes[axis + 1 or len(sizes) :])[0] == 1:
        assert len(numbers["y.pair"]) == 2


def test_what_it_need_not_change_stays_as_it_is() -> None:
    content = reducing("ReduceMax", (1, 3), 1)
    assert spelled(content) == content
    content = reducing("ReduceMean", (2, 3, 4, 5), 1)  # neither an axis of size one, nor room for it
    assert spelled(content) == content


@pytest.fixture
def ncnn() -> None:
    """Where ncnn is there, and else where all runtimes are asked for (`make runtimes`)."""
    try:
        RUNTIMES["ncnn"].version()
    except RuntimeMissingError as error:
        assert not os.environ.get("GRAFTKIT_ALL_RUNTIMES"), error
        pytest.skip(str(error))


@pytest.mark.usefixtures("ncnn")
@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("operator", REDUCTIONS)
@pytest.mark.parametrize(
    ("sizes", "axis"),
    [(("n", 3), 1), (("n", 3, 5), 1), (("n", 3, 5), -1), (("n", 3, 5, 4), 2), ((2, 3, 5), 0), ((2, 3, 5), 2)],
)
def test_ncnn_reduces_one_axis(operator: str, sizes: Sizes, axis: int, keepdims: int) -> None:
    content = reducing(operator, sizes, axis, keepdims=keepdims)
    rows = positive(2, *(size for size in sizes[1:] if isinstance(size, int)))
    right = said("onnxruntime", content, rows)
    np.testing.assert_allclose(said("ncnn", content, rows), right, rtol=1e-5)


@pytest.mark.usefixtures("ncnn")
def test_ncnn_refuses_a_reduction_whose_axis_is_lost() -> None:
    with pytest.raises(ExportError, match=r"^ncnn does not load the file: .*lost the axis of a reduction") as caught:
        RUNTIMES["ncnn"].open(reducing("ReduceMean", (2, 3, 5, 4), 1))
    assert "\n" not in str(caught.value)
