"""What pnnx is given in place of forms that it does not read: it says the same, and ncnn then does, too."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

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


def made(
    nodes: list[onnx.NodeProto],
    sizes: tuple[Sizes, Sizes],
    constants: dict[str, np.ndarray],
    kind: int = TensorProto.FLOAT,
) -> bytes:
    """A file from x to y."""
    ports = [helper.make_tensor_value_info(*port) for port in zip("xy", (kind, TensorProto.FLOAT), sizes, strict=True)]
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "made", ports[:1], ports[1:], tensors)
    opset = [helper.make_opsetid("", 20)]
    return bytes(helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString())


def embedding(rows: int | str, axis: int | None = 0) -> bytes:
    """Rows of five tokens, looked up in a table of ten, below which pnnx tries tokens that are not there."""
    table = np.random.RandomState(1).randn(10, 4).astype(np.float32)
    look = helper.make_node("Gather", ["table", "x"], ["e"], **({} if axis is None else {"axis": axis}))
    nodes = [look, helper.make_node("Tanh", ["e"], ["y"])]
    return made(nodes, ((rows, 5), (rows, 5, 4)), {"table": table}, TensorProto.INT64)


def norm(rows: int | str, length: int = 6) -> bytes:
    """An instance norm over a length, with weights."""
    weights = {name: np.random.RandomState(2).randn(3).astype(np.float32) for name in ("scale", "bias")}
    nodes = [helper.make_node("Relu", ["x"], ["r"]),
             helper.make_node("InstanceNormalization", ["r", "scale", "bias"], ["y"], epsilon=1e-3)]  # fmt: skip
    return made(nodes, ((rows, 3, length), (rows, 3, length)), weights)


def heads(rows: int | str, *, gather: bool = False, third: int = 2) -> bytes:
    """Attention of two heads over five tokens of three numbers each, as torch writes it, but for the sum's weights.

    `third` is where the axis of queries, keys and values is; it is last but two where all of them lie side by side.
    """
    split = [2, 4]
    split.insert(third - 2, 3)
    numbers = {"five": [-1 if rows == "n" else 1, 5, *split], "three": [-1 if rows == "n" else 1, 5, 8]}
    numbers |= {str(index): [index] for index in range(4)}
    constants: dict[str, np.ndarray] = {name: np.array(value, np.int64) for name, value in numbers.items()}
    constants |= {f"at{index}": np.array(index, np.int64) for index in range(3)}
    constants["weight"] = np.random.RandomState(3).randn(6, 24).astype(np.float32)
    left = [place for place in (2, 3, 4) if place != third]
    order = [third, 0, left[0], 1, left[1]]
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["qkv"]),
        helper.make_node("Reshape", ["qkv", "five"], ["view"]),
        helper.make_node("Transpose", ["view"], ["turned"], perm=order),
    ]
    for index, name in enumerate("qkv"):
        if gather:
            nodes.append(helper.make_node("Gather", ["turned", f"at{index}"], [f"p{name}"], axis=0))
        else:
            ends = [str(index), str(index + 1), "0"]
            nodes.append(helper.make_node("Slice", ["turned", *ends], [f"s{name}"]))
            nodes.append(helper.make_node("Squeeze", [f"s{name}", "0"], [f"p{name}"]))
    nodes += [
        helper.make_node("Transpose", ["pk"], ["keys"], perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["pq", "keys"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["shares"], axis=-1),
        helper.make_node("MatMul", ["shares", "pv"], ["mixed"]),
        helper.make_node("Transpose", ["mixed"], ["back"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["back", "three"], ["y"]),
    ]
    return made(nodes, ((rows, 5, 6), (rows, 5, 8)), constants)


def mask(
    rows: int | str,
    *,
    low: float = float(np.finfo(np.float32).min),
    also: str = "",
    less: int = 0,
    name: str = "either",
) -> bytes:
    """What is added to attention's scores where one token sees another: not itself, but what the mask leaves out."""
    constants = {"own": ~np.eye(5, dtype=bool)[None], "one": np.array([1]), "two": np.array([2]),
                 "bias": positive(1, 5, 5), "low": np.float32(low)}  # fmt: skip
    nodes = [
        helper.make_node("Cast", ["x"], ["m"], to=TensorProto.BOOL),
        helper.make_node("Unsqueeze", ["m", "one"], ["row"]),
        helper.make_node("Unsqueeze", ["m", "two"], ["column"]),
        helper.make_node("Not", ["column"], ["out"]),
        helper.make_node("And", ["own", "row"], ["seen"]),
        helper.make_node("Or", ["seen", "out"], [name]),
        helper.make_node("Where", [name, "bias", "low"], ["y"]),
    ]
    if less:  # a number that is worked out may be below zero
        constants["less"] = np.array(less)
        nodes[0].input[0] = "d"
        nodes.insert(0, helper.make_node("Sub", ["x", "less"], ["d"]))
    if also:
        nodes[-1].output[0] = "w"
        nodes.append(helper.make_node("Cast", [also], ["c"], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Add", ["w", "c"], ["y"]))
    return made(nodes, ((rows, 5), (rows, 5, 5)), constants, TensorProto.INT64)


TOKENS = np.array([[0, 6, 2, 9, 5], [1, 3, 8, 0, 6]])
FORMS = {
    "embedding": (embedding, TOKENS),
    "norm": (norm, np.random.RandomState(4).randn(2, 3, 6).astype(np.float32)),
    "mask": (mask, TOKENS),
    "mask whose names are taken": (partial(mask, name="y.one"), TOKENS),
    "heads": (heads, np.random.RandomState(5).randn(2, 5, 6).astype(np.float32)),
    "heads by Gather": (partial(heads, gather=True), np.random.RandomState(6).randn(2, 5, 6).astype(np.float32)),
}


def positive(*sizes: int) -> np.ndarray:
    return (np.random.RandomState(0).rand(*sizes) + 0.5).astype(np.float32)


@pytest.fixture
def ncnn() -> None:
    """Where ncnn is there, and else where all runtimes are asked for (`make runtimes`)."""
    try:
        RUNTIMES["ncnn"].version()
    except RuntimeMissingError as error:
        assert not os.environ.get("GRAFTKIT_ALL_RUNTIMES"), error
        pytest.skip(str(error))


@settings(deadline=None)
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
    numbers = {t.name: numpy_helper.to_array(t) for t in onnx.load_model_from_string(other).graph.initializer}
    if len(sizes) < 4 or sorted(sizes[:axis] + sizes[axis + 1 or len(sizes) :])[0] == 1:
        assert len(numbers["y.pair"]) == 2


def largest(operator: str, sizes: Sizes, axes: Sequence[int], keepdims: int) -> bytes:
    """The largest or smallest of the rectified x over some axes."""
    nodes = [helper.make_node("Tanh", ["x"], ["r"]),
             helper.make_node(operator, ["r", "axes"], ["y"], keepdims=keepdims)]  # fmt: skip
    gone = {axis % len(sizes) for axis in axes}
    left = tuple(1 if at in gone else size for at, size in enumerate(sizes) if keepdims or at not in gone)
    return made(nodes, (sizes, left), {"axes": np.array(axes, np.int64)})


@settings(deadline=None)
@given(st.data())
def test_a_pool_says_what_is_largest(data: st.DataObject) -> None:
    sizes = (1, *data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))
    axes = data.draw(st.lists(st.integers(1, len(sizes) - 1), min_size=1, unique=True))
    axes = [axis - len(sizes) * data.draw(st.booleans()) for axis in axes]
    content = largest(data.draw(st.sampled_from(["ReduceMax", "ReduceMin"])), sizes, axes, data.draw(st.booleans()))
    other = spelled(content)
    proto = onnx.load_model_from_string(other)
    onnx.checker.check_model(proto, full_check=True)
    assert "GlobalMaxPool" in [node.op_type for node in proto.graph.node]
    rows = np.random.RandomState(0).randn(*sizes).astype(np.float32)
    np.testing.assert_array_equal(said("onnxruntime", other, rows), said("onnxruntime", content, rows))


@pytest.mark.usefixtures("ncnn")
@pytest.mark.parametrize("operator", ["ReduceMax", "ReduceMin"])
@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize(
    ("sizes", "axes"), [(("n", 3, 5), [1]), (("n", 3, 5), [-1]), (("n", 3, 5, 4), [2, 3]), (("n", 6), [1])]
)
def test_ncnn_finds_what_is_largest(operator: str, sizes: Sizes, axes: Sequence[int], keepdims: int) -> None:
    content = largest(operator, sizes, axes, keepdims)
    rows = np.random.RandomState(0).randn(2, *(size for size in sizes[1:] if isinstance(size, int))).astype(np.float32)
    np.testing.assert_allclose(said("ncnn", content, rows), said("onnxruntime", content, rows), rtol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_other_forms_say_the_same(form: str) -> None:
    make, rows = FORMS[form]
    content = make(1)
    other = spelled(content)
    assert other != content
    onnx.checker.check_model(onnx.load_model_from_string(other), full_check=True)
    for row in (rows[:1], rows[1:]):
        right = said("onnxruntime", content, row)
        np.testing.assert_allclose(said("onnxruntime", other, row), right, rtol=1e-5, atol=1e-6)


def test_a_size_that_onnx_does_not_infer_is_no_axis_of_one() -> None:
    content = reducing("ReduceMean", (1, 3), 1)
    proto = onnx.load_model_from_string(content)
    proto.graph.node[0].CopyFrom(helper.make_node("NonZero", ["x"], ["z"]))  # [2, as many as there are]
    proto.graph.node.insert(1, helper.make_node("Cast", ["z"], ["r"], to=TensorProto.FLOAT))
    proto.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 2
    other = spelled(proto.SerializeToString())
    assert [node.op_type for node in onnx.load_model_from_string(other).graph.node].count("Unsqueeze") == 1
    rows = positive(1, 3)
    np.testing.assert_array_equal(said("onnxruntime", other, rows), [[0], [1]])


def test_five_axes_are_left_where_the_third_is_not_the_outermost() -> None:
    content = heads(1, third=3)
    assert spelled(content) == content


@pytest.mark.parametrize(
    "left",
    [
        mask(1, low=-np.inf),
        mask(1, also="m"),
        mask(1, also="either"),
        mask(1, also="column"),
        mask("n"),
        mask(1, less=5),
    ],
)
def test_masks_are_left_that_something_else_reads_or_that_are_infinite(left: bytes) -> None:
    onnx.checker.check_model(onnx.load_model_from_string(left), full_check=True)
    assert spelled(left) == left


@pytest.mark.usefixtures("ncnn")
def test_a_file_that_holds_less_than_it_says_is_refused() -> None:
    proto = onnx.load_model_from_string(reducing("ReduceMean", ("n", 3), 1))
    del proto.graph.initializer[0].int64_data[:]
    with pytest.raises(ExportError, match=r"^ncnn does not load the file: ") as caught:
        RUNTIMES["ncnn"].open(proto.SerializeToString())
    assert "\n" not in str(caught.value)


def test_what_it_need_not_change_stays_as_it_is() -> None:
    content = embedding(1, axis=None)
    assert spelled(content) == content
    for sizes, axis in (((2, 3), 1), ((1, 3), 0)):  # two rows; over the rows
        content = reducing("ReduceMax", sizes, axis)
        assert spelled(content) == content
    content = reducing("ReduceMean", (2, 3, 4, 5), 1)  # neither an axis of size one, nor room for it
    assert spelled(content) == content


@pytest.mark.usefixtures("ncnn")
@pytest.mark.parametrize(
    ("operator", "sizes", "axis"),
    [
        *((operator, ("n", 3, 5), 1) for operator in REDUCTIONS),
        ("ReduceMean", ("n", 3), 1),
        ("ReduceMean", ("n", 3, 5), -1),
        ("ReduceMean", ("n", 3, 5, 4), 2),
        ("ReduceMean", (2, 3, 5), 0),
    ],
)
@pytest.mark.parametrize("keepdims", [0, 1])
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


@pytest.mark.usefixtures("ncnn")
@pytest.mark.parametrize("form", FORMS)
def test_ncnn_runs_other_forms(form: str) -> None:
    make, rows = FORMS[form]
    right = said("onnxruntime", make("n"), rows)
    np.testing.assert_allclose(said("ncnn", make("n"), rows), right, rtol=1e-4, atol=1e-5)
