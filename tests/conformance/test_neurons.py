"""Neurons that are constant or that nobody reads: they go, the numbers stay; what may not go stays as it is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from test_rewrites import NOTHING, assert_same, either, model_of, node, numbers, outputs_of, rewritten

from graftkit import folding
from graftkit.folding.rewrites import REWRITES
from graftkit.folding.written import Written

Nodes = Sequence[onnx.NodeProto]
Constants = dict[str, np.ndarray]


def conv(source: str, output: str, name: str, *, bias: bool = True, **settings: object) -> onnx.NodeProto:
    return node("Conv", [source, f"{name}.w", *([f"{name}.b"] if bias else [])], output, **settings)


def weights(name: str, *shape: int, rows: Sequence[int] = (), columns: Sequence[int] = (), seed: int = 0) -> Constants:
    """A Conv's numbers; those of some rows, or columns, are zero."""
    weight = numbers(*shape, seed=seed)
    weight[list(rows)] = 0
    weight[:, list(columns)] = 0
    return {f"{name}.w": weight, f"{name}.b": numbers(shape[0], seed=seed + 1, low=0.2)}


def counts(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    return {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}


first = weights("v", 5, 3, 3, 3, rows=(1, 3))
second = weights("w", 4, 5, 3, 3, seed=7)
last = weights("w", 4, 5, 3, 3, seed=7, columns=(0, 2))
plain = weights("v", 5, 3, 3, 3)
none = {"v.b": np.array([1, 0, 1, 0, 1], np.float32)}  # of first: what is constant is zero
rectified = [conv("x", "h", "v"), node("Relu", ["h"], "r")]

GOES: dict[str, tuple[onnx.ModelProto, dict[str, int]]] = {  # the model, and how many rows its weights are left with
    "constant": (model_of([*rectified, conv("r", "y", "w")], first | second), {"v.w": 3}),
    "constant where nobody has a bias": (
        model_of([conv("x", "h", "v", bias=False), node("Relu", ["h"], "r"), conv("r", "y", "w", bias=False)],
                 {"v.w": first["v.w"], "w.w": second["w.w"]}),
        {"v.w": 3},
    ),
    "constant, and a new bias": (
        model_of([*rectified, conv("r", "y", "w", bias=False)], first | {"w.w": second["w.w"]}), {"v.w": 3},
    ),
    "read by zeros alone": (model_of([*rectified, conv("r", "y", "w")], plain | last), {"v.w": 3}),
    "both": (model_of([*rectified, conv("r", "y", "w")], first | last), {"v.w": 1}),
    "all constant: one stays": (
        model_of([*rectified, conv("r", "y", "w")], weights("v", 5, 3, 3, 3, rows=range(5)) | second), {"v.w": 1},
    ),
    "zero, before a border": (
        model_of([*rectified, conv("r", "y", "w", pads=[1, 1, 1, 1])], first | none | second), {"v.w": 3},
    ),
    "behind a tanh and a factor": (
        model_of([conv("x", "h", "v"), node("Tanh", ["h"], "t"), node("Mul", ["s", "t"], "m"), conv("m", "y", "w")],
                 first | second | {"s": numbers(5, 1, 1, seed=3)}),
        {"v.w": 3, "s": 3},
    ),
    "behind bounds and one number for all": (
        model_of([conv("x", "h", "v"), node("Clip", ["h", "0", "6"], "c"), node("Sub", ["6", "c"], "m"),
                  conv("m", "y", "w")], first | second | {"0": np.float32(0), "6": np.float32(6)}),
        {"v.w": 3},
    ),
    "behind pools": (
        model_of([*rectified, node("MaxPool", ["r"], "p", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
                  node("AveragePool", ["p"], "q", kernel_shape=[2, 2], pads=[1, 1, 0, 0]),
                  node("GlobalAveragePool", ["q"], "g"), conv("g", "y", "w")],
                 first | weights("w", 4, 5, 1, 1, seed=7)),
        {"v.w": 3},
    ),
    "behind a mean, before a gemm": (
        model_of([*rectified, node("ReduceMean", ["r", "axes"], "m", keepdims=0),
                  node("Gemm", ["m", "u", "c"], "y", transB=1)],
                 first | {"u": numbers(4, 5), "c": numbers(4), "axes": np.array([2, 3])}),
        {"v.w": 3},
    ),
    "behind a mean of negative axes": (
        model_of([*rectified, node("ReduceMean", ["r", "axes"], "m"), conv("m", "y", "w")],
                 first | weights("w", 4, 5, 1, 1, seed=7) | {"axes": np.array([-1, -2])}),
        {"v.w": 3},
    ),
    "through a depthwise convolution": (
        model_of([*rectified, conv("r", "d", "d", group=5), conv("d", "y", "w")],
                 first | weights("d", 5, 1, 3, 3, seed=4) | weights("w", 4, 5, 1, 1, seed=7)),
        {"v.w": 3, "d.w": 3},
    ),
    "zero into a depthwise convolution with a border": (
        model_of([*rectified, conv("r", "d", "d", group=5, pads=[1, 1, 1, 1]), conv("d", "y", "w")],
                 first | none | weights("d", 5, 1, 3, 3, seed=4) | weights("w", 4, 5, 1, 1, seed=7)),
        {"v.w": 3, "d.w": 3},
    ),
    "made constant by a depthwise convolution": (
        model_of([*rectified, conv("r", "d", "d", group=5), conv("d", "y", "w")],
                 plain | weights("d", 5, 1, 3, 3, seed=4, rows=(2,)) | weights("w", 4, 5, 1, 1, seed=7)),
        {"v.w": 4, "d.w": 4},
    ),
    "a sum of two calls, both constant": (
        model_of([conv("x", "h", "v"), conv("x", "k", "u"), node("Add", ["h", "k"], "s"), conv("s", "y", "w")],
                 first | weights("u", 5, 3, 3, 3, seed=9, rows=(3, 4)) | second),
        {"v.w": 4, "u.w": 4},
    ),
    "a sum that nobody reads": (
        model_of([conv("x", "h", "v"), conv("x", "k", "u"), node("Add", ["h", "k"], "s"), conv("s", "y", "w")],
                 plain | weights("u", 5, 3, 3, 3, seed=9) | last),
        {"v.w": 3, "u.w": 3},
    ),
    "two readers": (
        model_of([*rectified, conv("r", "k", "w"), conv("r", "l", "u"), node("Add", ["k", "l"], "y")],
                 first | last | weights("u", 4, 5, 3, 3, seed=8, columns=(0,))),
        {"v.w": 2},
    ),
    "a call that reads what it is added to": (
        model_of([*rectified, conv("r", "k", "u"), node("Add", ["k", "r"], "s"), conv("s", "y", "w")],
                 first | weights("u", 5, 5, 1, 1, seed=8, rows=(1,), columns=(4,)) | weights(
                     "w", 4, 5, 1, 1, seed=7, columns=(4,))),
        {"v.w": 3, "u.w": 3},
    ),
    "a gemm the other way round": (
        model_of([node("Gemm", ["x", "v", "c"], "h"), node("Gelu", ["h"], "g"), node("Gemm", ["g", "w", "d"], "y")],
                 {"v": numbers(6, 5) * np.array([1, 0, 1, 1, 0], np.float32), "c": numbers(5, low=0.2),
                  "w": numbers(5, 4, seed=2), "d": numbers(4)}, shape=("n", 6)),
        {"w": 3, "c": 3},
    ),
    "products with a sum behind each": (
        model_of([node("MatMul", ["x", "v"], "h"), node("Add", ["c", "h"], "a"), node("Relu", ["a"], "r"),
                  node("MatMul", ["r", "w"], "k"), node("Add", ["k", "d"], "y")],
                 {"v": numbers(6, 5) * np.array([1, 0, 1, 1, 0], np.float32), "c": numbers(5, low=0.2),
                  "w": numbers(5, 4, seed=2), "d": numbers(4)}, shape=("n", 7, 6)),
        {"w": 3, "c": 3},
    ),
    "a product without a sum, where it is zero": (
        model_of([node("MatMul", ["x", "v"], "h"), node("Relu", ["h"], "r"), node("MatMul", ["r", "w"], "y")],
                 {"v": numbers(6, 5) * np.array([1, 0, 1, 1, 0], np.float32), "w": numbers(5, 4, seed=2)},
                 shape=("n", 7, 6)),
        {"w": 3},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", GOES)
def test_they_go(case: str) -> None:
    before, left = GOES[case]
    after, changed = rewritten(before, "neurons")
    assert changed == 1 and {name: counts(after)[name][0] for name in left} == left
    assert_same(before, after)
    onnx.checker.check_model(after, full_check=True)
    assert rewritten(after, "neurons")[1] == 0


STAYS: dict[str, onnx.ModelProto] = {
    "nearly zero": model_of([*rectified, conv("r", "y", "w")], plain | second | {
        "v.w": np.where(first["v.w"] == 0, np.float32(1e-30), first["v.w"])
    }),
    "constant before a border": model_of([*rectified, conv("r", "y", "w", pads=[1, 1, 1, 1])], first | second),
    "constant before a border that fits itself": model_of([*rectified, conv("r", "y", "w", auto_pad="SAME_UPPER")],
                                                          first | second),
    "constant in a mean with zeros around": model_of(
        [*rectified, node("AveragePool", ["r"], "p", kernel_shape=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1),
         conv("p", "y", "w")], first | second),
    "constant into a depthwise convolution with a border": model_of(
        [*rectified, conv("r", "d", "d", group=5, pads=[1, 1, 1, 1]), conv("d", "y", "w")],
        first | weights("d", 5, 1, 3, 3, seed=4) | second),
    "read by a grouped convolution": model_of(
        [conv("x", "h", "v"), conv("h", "y", "w", group=2)],
        weights("v", 4, 3, 3, 3, rows=(1,)) | weights("w", 4, 2, 3, 3, seed=3)),
    "made by a grouped convolution": model_of(
        [conv("x", "h", "v", group=2), conv("h", "y", "w")],
        weights("v", 6, 2, 3, 3, rows=(1,)) | weights("w", 4, 6, 3, 3, seed=3), shape=("n", 4, 5, 5)),
    "an output": model_of([*rectified, conv("r", "y", "w")], first | last, outputs=("y", "r")),
    "the last ones": model_of(rectified[:1], {"v.w": first["v.w"], "v.b": first["v.b"]}, outputs=("h",)),
    "a product that is given, before its bias": model_of(
        [node("MatMul", ["x", "v.w"], "p"), node("Add", ["p", "v.b"], "h"), node("Relu", ["h"], "r"),
         node("MatMul", ["r", "w.w"], "q"), node("Add", ["q", "w.b"], "y")],
        {"v.w": weights("v", 5, 4, columns=(1,)).pop("v.w"), "v.b": numbers(4, low=0.2), "w.w": numbers(4, 3, seed=3),
         "w.b": numbers(3, seed=4)}, shape=("n", 5), outputs=("y", "q")),
    "a sum with the input": model_of(
        [conv("x", "h", "v", pads=[1, 1, 1, 1]), node("Add", ["h", "x"], "s"), conv("s", "y", "w")],
        weights("v", 3, 3, 3, 3, rows=(1,)) | weights("w", 4, 3, 3, 3, columns=(1,))),
    "a sum where one is spread over channels": model_of(
        [conv("x", "h", "v"), conv("x", "k", "u"), node("Add", ["h", "k"], "s"), conv("s", "y", "w")],
        first | weights("u", 1, 3, 3, 3, seed=9) | last),
    "a sum of which one is not constant": model_of(
        [conv("x", "h", "v"), conv("x", "k", "u"), node("Add", ["h", "k"], "s"), conv("s", "y", "w")],
        first | weights("u", 5, 3, 3, 3, seed=9) | second),
    "channels that are joined": model_of(
        [*rectified, node("Concat", ["r", "r"], "c", axis=1), conv("c", "y", "w")],
        first | weights("w", 4, 10, 3, 3, seed=3, columns=(0, 5))),
    "channels that are reshaped": model_of(
        [*rectified, node("Flatten", ["r"], "f"), node("Gemm", ["f", "u"], "y")], first | {"u": numbers(45, 4)}),
    "channels that are compared with one another": model_of(
        [*rectified, node("Softmax", ["r"], "s", axis=1), conv("s", "y", "w")], first | last),
    "a mean over channels": model_of(
        [*rectified, node("ReduceMean", ["r", "axes"], "m"), node("Sub", ["r", "m"], "s"), conv("s", "y", "w")],
        first | last | {"axes": np.array([1])}),
    "numbers that differ by place": model_of(
        [*rectified, node("Mul", ["r", "s"], "m"), conv("m", "y", "w")], first | last | {"s": numbers(5, 3, 3)}),
    "numbers along the width": model_of(
        [*rectified, node("Mul", ["r", "s"], "m"), conv("m", "y", "w")], first | last | {"s": numbers(5)},
        shape=("n", 3, 7, 7)),
    "a weight of two": model_of(
        [*rectified, conv("x", "k", "v"), node("Relu", ["k"], "l"), conv("r", "p", "w"), node("Add", ["l", "l"], "q"),
         node("ReduceSum", ["q", "axes"], "s"), node("Add", ["p", "s"], "y")],
        first | last | {"axes": np.array([1, 2, 3])}),
    "a bias of two": model_of(
        [*rectified, conv("r", "p", "w"), node("Add", ["p", "wide"], "q"), node("Mul", ["v.b", "v.b"], "bb"),
         node("ReduceSum", ["bb"], "s", keepdims=0), node("Add", ["q", "s"], "y")],
        first | last | {"wide": numbers(4, 1, 1)}),
    "a norm between": model_of(
        [*rectified, node("BatchNormalization", ["r", "one", "one", "one", "one"], "n"), conv("n", "y", "w")],
        first | last | {"one": np.ones(5, np.float32)}),
    "a scaled gemm": model_of(
        [node("Gemm", ["x", "v"], "h", alpha=0.5), node("Gemm", ["h", "w"], "y")],
        {"v": numbers(6, 5) * np.array([1, 0, 1, 1, 0], np.float32), "w": numbers(5, 4)}, shape=("n", 6)),
    "a product without a sum, where it is not zero": model_of(
        [node("MatMul", ["x", "v"], "h"), node("Add", ["h", "c"], "a"), node("MatMul", ["a", "w"], "y")],
        {"v": numbers(6, 5) * np.array([1, 0, 1, 1, 0], np.float32), "c": numbers(5, low=0.2), "w": numbers(5, 4)},
        shape=("n", 7, 6)),
    "half precision": model_of(
        [node("Cast", ["x"], "i", to=TensorProto.FLOAT16), conv("i", "h", "v"), conv("h", "k", "w"),
         node("Cast", ["k"], "y", to=TensorProto.FLOAT)],
        {name: value.astype(np.float16) for name, value in (first | last).items()}),
    "whole numbers in a weight": model_of(
        [*rectified, node("DequantizeLinear", ["q", "scale"], "u"), node("Conv", ["r", "u"], "y")],
        first | {"q": np.zeros((4, 5, 3, 3), np.int8), "scale": np.float32(0.1)}),
    "read inside a branch": model_of(
        [*rectified, conv("r", "k", "w"), *either("x", "i", [node("ReduceMax", ["r"], "p", keepdims=0)],
                                                  [node("ReduceMin", ["x"], "q", keepdims=0)]),
         node("Add", ["k", "i"], "y")], first | last | NOTHING),
}  # fmt: skip


@pytest.mark.parametrize("case", STAYS)
def test_they_stay(case: str) -> None:
    before = STAYS[case]
    after, changed = rewritten(before, "neurons")
    assert changed == 0 and counts(after) == counts(before)
    assert_same(before, after)


def test_what_is_not_known_is_not_guessed() -> None:
    before = model_of([*rectified, node("Mul", ["r", "s"], "m"), conv("m", "y", "w")], first | last | {
        "s": numbers(5, 1, 1)
    })  # fmt: skip
    del before.graph.value_info[:]
    assert rewritten(before, "neurons")[1] == 0


def test_neurons_that_fed_a_dead_one_go_with_the_next_round() -> None:
    nodes = [*rectified, conv("r", "k", "u"), node("Relu", ["k"], "l"), conv("l", "y", "w")]
    middle = weights("u", 5, 5, 1, 1, seed=3)
    middle["u.w"][:, 2] = 0
    middle["u.w"][0, 2] = 1  # the first reads the third, and nobody else does
    before = model_of(nodes, plain | middle | weights("w", 4, 5, 1, 1, seed=7, columns=(0,)))
    after = folding.fold(Written(before), (), ()).whole()
    assert counts(after)["v.w"][0] == 4 and counts(after)["u.w"][:2] == (4, 4)
    assert_same(before, after)


def test_a_large_weight_stays_out_of_the_graph() -> None:
    rows = np.ones((300, 1), np.float32)
    rows[7] = 0
    held = {"v": numbers(300, 400) * rows, "c": numbers(300, low=0.1), "w": 0.01 * numbers(300, 300, seed=4)}
    before = model_of([node("Gemm", ["x", "v", "c"], "h", transB=1), node("Relu", ["h"], "r"),
                       node("Gemm", ["r", "w"], "y", transB=1)], held, shape=("n", 400))  # fmt: skip
    after = folding.fold(Written(before), (), ())
    assert {tensor.name for tensor, _ in after.apart()} == {"v", "w"}
    whole = after.whole()
    assert counts(whole) == {"v": (299, 400), "c": (299,), "w": (300, 299), "w.bias": (300,)}
    assert_same(before, whole)


@st.composite
def chains(draw: st.DrawFn) -> onnx.ModelProto:
    """Convolutions in a row, in one to three dimensions, with zeros in rows and columns of their weights."""
    dims, channels, source = draw(st.integers(1, 3)), draw(st.integers(1, 3)), "x"
    shape, nodes, held = ("n", channels, *(9 + place for place in range(dims))), list[onnx.NodeProto](), Constants()
    for index in range(draw(st.integers(2, 4))):
        name, output, given = f"c{index}", f"h{index}", channels
        deep = draw(st.integers(0, 3)) == 0
        channels = given if deep else draw(st.integers(1, 5))
        kernel = [draw(st.integers(1, 2)) for _ in range(dims)]
        some = st.sets(st.integers(0, 4))
        rows, columns = draw(some), draw(some)
        held |= weights(name, channels, 1 if deep else given, *kernel, seed=10 * index,
                        rows=[row for row in rows if row < channels],
                        columns=[] if deep else [column for column in columns if column < given])  # fmt: skip
        if draw(st.booleans()):
            held[f"{name}.b"] *= 0
        pads = [draw(st.integers(0, 1)) for _ in range(2 * dims)] if draw(st.booleans()) else [0] * (2 * dims)
        settings_ = {"pads": pads, "strides": [draw(st.integers(1, 2)) if index == 0 else 1 for _ in range(dims)],
                     "group": given if deep else 1}  # fmt: skip
        nodes.append(conv(source, output, name, bias=draw(st.booleans()), **settings_))
        source = output
        match draw(st.sampled_from(("Relu", "Tanh", "Mul", "Sigmoid", "AveragePool", "MaxPool", "Skip", "None"))):
            case "Mul":
                held[f"s{index}"] = numbers(channels, *[1] * dims, seed=index)
                nodes.append(node("Mul", [source, f"s{index}"], f"m{index}"))
            case "AveragePool":
                include = draw(st.integers(0, 1))
                nodes.append(node("AveragePool", [source], f"m{index}", kernel_shape=[3] * dims, pads=[1] * 2 * dims,
                                  count_include_pad=include))  # fmt: skip
            case "MaxPool":
                nodes.append(node("MaxPool", [source], f"m{index}", kernel_shape=[3] * dims, pads=[1] * 2 * dims))
            case "Skip":
                held |= weights(f"k{index}", channels, channels, *[1] * dims, seed=10 * index + 5)
                nodes.append(conv(source, f"b{index}", f"k{index}"))
                nodes.append(node("Add", [source, f"b{index}"], f"m{index}"))
            case "None":
                continue
            case operator:
                nodes.append(node(operator, [source], f"m{index}"))
        source = f"m{index}"
    nodes.append(node("Identity", [source], "y"))
    return model_of(nodes, held, shape=shape)


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(chains())
def test_any_chain_keeps_its_numbers(before: onnx.ModelProto) -> None:
    graph = gs.import_onnx(before)
    for _ in range(4):
        if not REWRITES["neurons"](graph):
            break
    after = gs.export_onnx(graph.cleanup().toposort())
    after.ir_version = before.ir_version
    onnx.checker.check_model(after, full_check=True)
    dims = [size.dim_value for size in before.graph.input[0].type.tensor_type.shape.dim][1:]
    inputs = numbers(3, *dims, seed=3, low=-2, high=2)
    (expected,), (found,) = outputs_of(before, inputs), outputs_of(after, inputs)
    assert expected.shape == found.shape
    assert np.abs(found - expected).max() <= 1e-6 * max(1.0, float(np.abs(expected).max()))
    assert sum(map(np.prod, counts(after).values())) <= sum(map(np.prod, counts(before).values())) + 20


def test_an_operator_of_another_domain_is_no_step() -> None:
    relu = helper.make_node("Relu", ["h"], ["r"], domain="own")
    before = model_of([*rectified, conv("r", "y", "w")], first | last)
    before.graph.node[1].CopyFrom(relu)
    before.opset_import.append(helper.make_opsetid("own", 1))
    assert REWRITES["neurons"](gs.import_onnx(before)) == 0
