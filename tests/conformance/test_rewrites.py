"""Every ONNX rewrite: where it applies the node goes and the numbers stay; where it must not, nothing changes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_graphsurgeon as gs
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from graftkit import folding
from graftkit.core.signature import Port, Signature
from graftkit.folding.export import check_standard
from graftkit.folding.ports import name_ports, name_sizes
from graftkit.folding.rewrites import REWRITES
from graftkit.folding.wire import write_whole
from graftkit.folding.written import reference

Nodes = Sequence[onnx.NodeProto]


def model_of(
    nodes: Nodes,
    constants: dict[str, np.ndarray],
    *,
    shape: Sequence[int | str] = ("n", 3, 5, 5),
    outputs: Sequence[str] = ("y",),
) -> onnx.ModelProto:
    """A model from `x`, with shapes inferred as the exporter writes them."""
    graph = helper.make_graph(
        list(nodes),
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def outputs_of(model: onnx.ModelProto, inputs: np.ndarray) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, {"x": inputs}))


def numbers(*shape: int, seed: int = 0, low: float = -1.0, high: float = 1.0) -> np.ndarray:
    return np.random.RandomState(seed).uniform(low, high, shape).astype(np.float32)


def rewritten(model: onnx.ModelProto, name: str) -> tuple[onnx.ModelProto, int]:
    graph = gs.import_onnx(model)
    changed = REWRITES[name](graph)
    graph.cleanup().toposort()
    after = gs.export_onnx(graph)
    after.ir_version = model.ir_version
    onnx.checker.check_model(after)
    return after, changed


def assert_same(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    dims = [value.dim_value or 6 for value in before.graph.input[0].type.tensor_type.shape.dim][1:]  # where free, six
    for rows in (1, 2, 7):
        inputs = numbers(rows, *dims, seed=rows, low=-2, high=2)
        for expected, found in zip(outputs_of(before, inputs), outputs_of(after, inputs), strict=True):
            assert expected.shape == found.shape
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert [value.name for value in after.graph.output] == [value.name for value in before.graph.output]


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def node(op: str, inputs: Sequence[str], output: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op, list(inputs), [output], **attributes)


def norm_of(channels: int, *, seed: int = 1, name: str = "n") -> dict[str, np.ndarray]:
    return {
        f"{name}.scale": numbers(channels, seed=seed, low=-2, high=2),
        f"{name}.shift": numbers(channels, seed=seed + 1),
        f"{name}.mean": numbers(channels, seed=seed + 2),
        f"{name}.var": numbers(channels, seed=seed + 3, low=0.2, high=2),
    }


def norm(source: str, output: str, *, name: str = "n") -> onnx.NodeProto:
    parts = [f"{name}.{part}" for part in ("scale", "shift", "mean", "var")]
    return node("BatchNormalization", [source, *parts], output, epsilon=1e-3)


CONV = {"w": numbers(4, 3, 3, 3), "b": numbers(4, seed=5)}
OTHER = {"v": numbers(4, 3, 3, 3, seed=6), "c": numbers(4, seed=7)}
STRENGTH = {"s": numbers(4, 1, 1, seed=8, low=0.1)}
conv = node("Conv", ["x", "w", "b"], "h")
branch = [node("Conv", ["x", "v", "c"], "d"), node("Tanh", ["d"], "a")]
joined = [conv, *branch, node("Mul", ["s", "a"], "m"), node("Add", ["h", "m"], "j")]

gated = [
    conv, node("Relu", ["h"], "r"), node("ReduceMean", ["r", "axes"], "m"), node("Tanh", ["m"], "t"),
    node("Add", ["t", "one"], "p"), node("Mul", ["h", "p"], "g"),
]  # fmt: skip
ONE = {"axes": np.array([2, 3]), "one": np.float32(1)}
KEY_SIZES = {
    "whole": np.array([-1]), "-1": np.array([-1]), "-2": np.array([-2]), "start": np.array([-(2**63)]),
    "end": np.array([2**63 - 1]),
}  # fmt: skip


def turned_keys(*, order: tuple[str, str, str] = ("lead", "last", "before"), last: str = "-1") -> Nodes:
    """As the exporter turns the keys of an attention; `order` is that of the sizes behind the turn."""
    return [
        node("Shape", ["x"], "sizes"),
        node("Slice", ["sizes", last, "end"], "last"),
        node("Slice", ["sizes", "-2", "-1"], "before"),
        node("Slice", ["sizes", "start", "-2"], "lead"),
        node("Concat", ["whole", "before", "last"], "flat", axis=0),
        node("Concat", list(order), "parted", axis=0),
        node("Reshape", ["x", "flat"], "f"),
        node("Transpose", ["f"], "t", perm=[0, 2, 1]),
        node("Reshape", ["t", "parted"], "y"),
    ]


def attention(mask: Nodes = (), *, scores: str = "a", axis: int = -1, zero: str = "zero") -> Nodes:
    """A guarded softmax of x x^T, to which nodes that end in `a` may add a mask."""
    start = [node("Transpose", ["x"], "k", perm=[0, 1, 3, 2]), node("MatMul", ["x", "k"], "s")]
    return [*start, *mask, node("Softmax", [scores], "p", axis=axis), node("IsNaN", ["p"], "n"),
            node("Where", ["n", zero, "p"], "y")]  # fmt: skip


def joined_directions(*, behind: str = "t", count: str = "2", last: str = "3") -> Nodes:
    """As the exporter joins a recurrent layer's directions, [length, directions, n, 4]: by sizes that it computes."""
    return [
        node("Transpose", ["x"], "t", perm=[0, 2, 1, 3]),
        node("Shape", [behind], "sizes"),
        node("Slice", ["sizes", "0", "1"], "length"),
        node("Slice", ["sizes", "1", "2"], "rows"),
        node("Slice", ["sizes", count, "3"], "directions"),
        node("Slice", ["sizes", last, "4"], "units"),
        node("Mul", ["directions", "units"], "product"),
        node("Reshape", ["product", "row"], "joined"),
        node("Concat", ["length", "rows", "joined"], "wanted", axis=0),
        node("Reshape", ["t", "wanted"], "y"),
    ]


def resized(behind: str = "x", **settings: object) -> Nodes:
    """As the exporter resizes images: the rows' number, which it copies, and a height and width."""
    return [
        node("Shape", [behind], "rows", start=0, end=2),
        node("Concat", ["rows", "plane"], "wanted", axis=0),
        node("Resize", ["x", "", "", "wanted"], "y", mode="linear", **settings),
    ]


def looked_up(
    *, first: str = "0", step: str = "1", counted: str = "tokens", g: Sequence[int | str] = ("n", 1, 1, 7)
) -> onnx.ModelProto:
    """As transformers looks up a mask, [n, tokens], as [n, 1, 1, tokens]: by the numbers of rows and of tokens."""
    nodes = [
        node("Shape", ["x"], "shape", start=0, end=1),
        node("Squeeze", ["shape"], "count"),
        node("Range", [first, "count", step], "rows"),
        node("Unsqueeze", ["rows", "three"], "row"),
        node("Max", ["row", counted], "all"),
        node("Shape", ["all"], "places"),
        node("Expand", ["row", "places"], "every_row"),
        node("Expand", [counted, "places"], "every_token"),
        node("Unsqueeze", ["every_row", "last"], "r"),
        node("Unsqueeze", ["every_token", "last"], "t"),
        node("Concat", ["r", "t"], "where", axis=-1),
        node("GatherND", ["x", "where"], "g"),
        node("Abs", ["g"], "y"),
    ]
    constants = {"0": np.array(0), "1": np.array(1), "2": np.array(2), "three": np.array([1, 2, 3]),
                 "last": np.array([-1]),
                 "tokens": np.arange(7).reshape(1, 1, 1, 7), "backwards": np.arange(7)[::-1].reshape(1, 1, 1, 7).copy(),
                 "some": np.arange(5).reshape(1, 1, 1, 5)}  # fmt: skip
    model = model_of(nodes, constants, shape=("n", 7))
    (place,) = (place for place, value in enumerate(model.graph.value_info) if value.name == "g")
    del model.graph.value_info[place]  # whose sizes onnx does not infer
    model.graph.value_info.append(helper.make_tensor_value_info("g", TensorProto.FLOAT, g))
    return model


PLANE = {"plane": np.array([10, 15])}
PLACES = {str(place): np.array([place]) for place in range(5)} | {"row": np.array([-1])}
MEAN = {"axes": np.array([2, 3])}


def pooled(*behind: onnx.NodeProto, axes: str = "axes", **settings: object) -> Nodes:
    """A mean that keeps its axes, and what takes them away."""
    return [conv, node("ReduceMean", ["h", axes], "m", **settings), *behind]


ZERO = {"zero": np.float32(0)}
LOWEST, INFINITE = np.float32(np.finfo(np.float32).min), np.float32(-np.inf)
CAUSAL = np.where(np.tri(5, dtype=bool), np.float32(0), INFINITE)
masked = [node("Add", ["s", "mask"], "a")]
chosen = [node("Greater", ["x", "zero"], "c"), node("Where", ["c", "zero", "low"], "mask"),
          node("Add", ["s", "mask"], "a")]  # fmt: skip


APPLIES: dict[str, tuple[str, onnx.ModelProto, str]] = {
    "norm behind a conv": ("batch_norm", model_of([conv, norm("h", "y")], CONV | norm_of(4)), "BatchNormalization"),
    "a weight that is turned": (
        "constants",
        model_of([node("Transpose", ["v"], "w", perm=[1, 0, 2, 3]), node("Conv", ["x", "w"], "y")], {
            "v": numbers(3, 4, 3, 3)
        }),
        "Transpose",
    ),
    "a Constant node": (
        "constants",
        model_of([node("Constant", [], "s", value_floats=[2.0, 3.0, 4.0]), node("Add", ["x", "s"], "y")], {},
                 shape=("n", 3)),
        "Constant",
    ),
    "norm behind a conv without a bias": (
        "batch_norm",
        model_of([node("Conv", ["x", "w"], "h"), norm("h", "y")], {"w": CONV["w"]} | norm_of(4)),
        "BatchNormalization",
    ),
    "norm behind a transposed conv": (
        "batch_norm",
        model_of(
            [node("ConvTranspose", ["x", "w", "b"], "h", strides=[2, 2]), norm("h", "y")],
            {"w": numbers(3, 4, 3, 3), "b": CONV["b"]} | norm_of(4),
        ),
        "BatchNormalization",
    ),
    "norm behind a grouped conv": (
        "batch_norm",
        model_of(
            [node("Conv", ["x", "w", "b"], "h", group=3), norm("h", "y")],
            {"w": numbers(6, 1, 3, 3), "b": numbers(6)} | norm_of(6),
        ),
        "BatchNormalization",
    ),
    "norm behind a gemm": (
        "batch_norm",
        model_of(
            [node("Gemm", ["x", "w", "b"], "h", transB=1), norm("h", "y")],
            {"w": numbers(4, 6), "b": CONV["b"]} | norm_of(4),
            shape=("n", 6),
        ),
        "BatchNormalization",
    ),
    "norm behind a gemm the other way round": (
        "batch_norm",
        model_of(
            [node("Gemm", ["x", "w", "b"], "h"), norm("h", "y")],
            {"w": numbers(6, 4), "b": CONV["b"]} | norm_of(4),
            shape=("n", 6),
        ),
        "BatchNormalization",
    ),
    "norm behind a sum with a dendrite": (
        "batch_norm",
        model_of([*joined, norm("j", "y")], CONV | OTHER | STRENGTH | norm_of(4)),
        "BatchNormalization",
    ),
    "strength behind a rectifier": (
        "strength",
        model_of([conv, node("Relu", ["h"], "r"), node("Mul", ["s", "r"], "y")], CONV | STRENGTH),
        "Mul",
    ),
    "strength behind a rectified gemm": (
        "strength",
        model_of(
            [node("Gemm", ["x", "w", "b"], "h", transB=1), node("Relu", ["h"], "r"), node("Mul", ["r", "s"], "y")],
            {"w": numbers(4, 6), "b": CONV["b"], "s": STRENGTH["s"].reshape(4)},
            shape=("n", 6),
        ),
        "Mul",
    ),
    "a silent branch": ("silent", model_of([*joined[:-1], node("Add", ["m", "h"], "y")], CONV | OTHER | {
        "s": np.zeros((4, 1, 1), np.float32)
    }), "Tanh"),
    "a product with one": ("idle", model_of([conv, node("Mul", ["h", "one"], "y")], CONV | {
        "one": np.ones((4, 1, 1), np.float32)
    }), "Mul"),
    "a sum with zero": ("idle", model_of([conv, node("Add", ["zero", "h"], "y")], CONV | {
        "zero": np.zeros(1, np.float32)
    }), "Add"),
    "an identity of the input": ("idle", model_of([node("Identity", ["x"], "i"), node("Relu", ["i"], "y")], {}),
                                 "Identity"),
    "an identity": ("idle", model_of([conv, node("Identity", ["h"], "i"), node("Relu", ["i"], "y")], CONV), "Identity"),
    "an identity at the end": ("idle", model_of([conv, node("Identity", ["h"], "y")], CONV), "Identity"),
    "a dropout": ("idle", model_of([conv, node("Dropout", ["h"], "y")], CONV), "Dropout"),
    "a cast to its own type": ("idle", model_of([conv, node("Cast", ["h"], "y", to=TensorProto.FLOAT)], CONV), "Cast"),
    "a transpose that keeps the order": (
        "idle",
        model_of([conv, node("Transpose", ["h"], "y", perm=[0, 1, 2, 3])], CONV),
        "Transpose",
    ),
    "strength behind a conv": ("scale", model_of([conv, node("Mul", ["s", "h"], "y")], CONV | {"s": -STRENGTH["s"]}),
                               "Mul"),
    "strength behind a product": (
        "scale",
        model_of([node("MatMul", ["x", "w"], "h"), node("Mul", ["h", "s"], "y")], {
            "w": numbers(6, 4), "s": STRENGTH["s"].reshape(4)
        }, shape=("n", 5, 6)),
        "Mul",
    ),
    "a gate": ("gate", model_of([*gated, node("Relu", ["g"], "y")], CONV | ONE), "Relu"),
    "a sigmoid gate": (
        "gate",
        model_of([conv, node("Relu", ["h"], "r"), node("Sigmoid", ["r"], "s"), node("Mul", ["s", "h"], "g"),
                  node("Relu", ["g"], "y")], CONV),
        "Relu",
    ),
    "two calls alike": (
        "shared",
        model_of([conv, node("Conv", ["x", "w", "b"], "k"), node("Tanh", ["k"], "t"), node("Add", ["h", "t"], "y")],
                 CONV),
        "Conv",
    ),
    "two small constants alike": (
        "shared",
        model_of([node("Add", ["x", "c"], "h"), node("Add", ["x", "d"], "k"), node("Mul", ["h", "k"], "y")],
                 {"c": numbers(3, 1, 1), "d": numbers(3, 1, 1)}),
        "Add",
    ),
    "two turns": (
        "turns",
        model_of([node("Transpose", ["x"], "t", perm=[0, 2, 3, 1]), node("Transpose", ["t"], "y", perm=[0, 2, 1, 3])],
                 {}),
        "Transpose",
    ),
    "two reshapes": (
        "turns",
        model_of([node("Reshape", ["x", "first"], "f"), node("Reshape", ["f", "second"], "y")],
                 {"first": np.array([0, 75]), "second": np.array([-1, 5, 15])}),
        "Reshape",
    ),
    "a reshape of a flat input": (
        "turns",
        model_of([node("Flatten", ["x"], "f"), node("Reshape", ["f", "second"], "y")],
                 {"second": np.array([-1, 5, 15])}),
        "Flatten",
    ),
    "an axis that comes and goes": (
        "turns",
        model_of([node("Unsqueeze", ["x", "0"], "u"), node("Transpose", ["u"], "t", perm=[3, 1, 2, 0, 4]),
                  node("Squeeze", ["t", "-2"], "y")], {"0": np.array([0]), "-2": np.array([-2])}),
        "Unsqueeze",
    ),
    "sizes of directions that are joined": (
        "known_sizes", model_of(joined_directions(), PLACES, shape=("n", 2, 7, 4)), "Reshape",
    ),
    "sizes of one direction": (
        "known_sizes", model_of(joined_directions(), PLACES, shape=("n", 1, 7, 4)), "Reshape",
    ),
    "a mask that is looked up": ("own_places", looked_up(), "GatherND"),
    "sizes of a resize": ("resizes", model_of(resized(), PLANE), "Shape"),
    "sizes of a resize to corners": (
        "resizes", model_of(resized(coordinate_transformation_mode="align_corners"), PLANE), "Concat",
    ),
    "sizes of a resize that are not whole times as many": (
        "resizes", model_of(resized(), {"plane": np.array([3, 4])}), "Concat",
    ),
    "a mean and a reshape": (
        "flat_mean", model_of(pooled(node("Reshape", ["m", "flat"], "y")), CONV | MEAN | {"flat": np.array([-1, 4])}),
        "Reshape",
    ),
    "a mean and a reshape that copies": (
        "flat_mean", model_of(pooled(node("Reshape", ["m", "flat"], "y")), CONV | MEAN | {"flat": np.array([0, -1])}),
        "Reshape",
    ),
    "a mean and a flattening": ("flat_mean", model_of(pooled(node("Flatten", ["m"], "y")), CONV | MEAN), "Flatten"),
    "a mean and a squeeze": (
        "flat_mean",
        model_of(pooled(node("Squeeze", ["m", "last"], "y")), CONV | MEAN | {"last": np.array([-1, -2])}),
        "Squeeze",
    ),
    "an axis that is moved and taken away": (
        "turns",
        model_of([node("Transpose", ["x"], "t", perm=[0, 2, 1, 3]), node("Squeeze", ["t", "2"], "y")],
                 {"2": np.array([2])}, shape=("n", 1, 5, 4)),
        "Transpose",
    ),
    "a gelu": ("gelu", model_of([conv, node("Gelu", ["h"], "y")], CONV), "Gelu"),
    "a softmax without a mask": ("empty_rows", model_of(attention(scores="s"), ZERO), "IsNaN"),
    "a causal softmax": ("empty_rows", model_of(attention(masked), ZERO | {"mask": CAUSAL}), "IsNaN"),
    "a softmax with a mask of large numbers": (
        "empty_rows", model_of(attention(chosen), ZERO | {"low": LOWEST}, shape=("n", 3, 5, 5)), "IsNaN",
    ),
    "a softmax with a mask and a bias": (
        "empty_rows",
        model_of(attention([*chosen[:2], node("Mul", ["s", "half"], "t"), node("Add", ["t", "bias"], "u"),
                            node("Unsqueeze", ["mask", "axes"], "v"), node("Squeeze", ["v", "axes"], "w"),
                            node("Add", ["u", "w"], "a")]),
                 ZERO | {"low": LOWEST, "half": np.float32(0.5), "bias": numbers(5, 5), "axes": np.array([1])}),
        "IsNaN",
    ),
    "keys that are turned": ("turns", model_of(turned_keys(), KEY_SIZES, shape=("n", 3, 5, 4)), "Reshape"),
}  # fmt: skip


def test_every_rewrite_has_a_place_where_it_applies() -> None:
    elsewhere = {"zero_state", "zero_padding", "neurons", "lstm_outputs", "norms"}
    assert {name for name, _, _ in APPLIES.values()} | elsewhere == set(REWRITES)


@pytest.mark.parametrize("case", APPLIES)
def test_it_applies(case: str) -> None:
    name, before, gone = APPLIES[case]
    after, changed = rewritten(before, name)
    assert changed == 1 and operators(after).count(gone) < operators(before).count(gone)
    assert_same(before, after)
    again, more = rewritten(after, name)
    assert more == 0 and operators(again) == operators(after)


NEVER: dict[str, tuple[str, onnx.ModelProto]] = {
    "norm whose input somebody else reads": (
        "batch_norm",
        model_of([conv, norm("h", "k"), node("Add", ["h", "k"], "y")], CONV | norm_of(4)),
    ),
    "norm whose input is an output": (
        "batch_norm",
        model_of([conv, norm("h", "y")], CONV | norm_of(4), outputs=("h", "y")),
    ),
    "norm of the input itself": ("batch_norm", model_of([norm("x", "y")], norm_of(3))),
    "norm behind a product along another axis": (
        "batch_norm",
        model_of(
            [node("Conv", ["x", "w", "b"], "h", pads=[0, 0, 0, 0]), *branch, node("Mul", ["s", "a"], "m"),
             node("Add", ["h", "m"], "j"), norm("j", "y")],
            CONV | OTHER | {"s": numbers(4)} | norm_of(4),
            shape=("n", 3, 6, 6),  # 4 x 4 behind a kernel of 3: the strengths run along the width
        ),
    ),
    "norm behind a product along the height": (
        "batch_norm",
        model_of(
            [conv, *branch, node("Mul", ["s", "a"], "m"), node("Add", ["h", "m"], "j"), norm("j", "y")],
            CONV | OTHER | {"s": numbers(4, 1)} | norm_of(4),
            shape=("n", 3, 6, 6),
        ),
    ),
    "norm behind a sum of one tensor with itself": (
        "batch_norm",
        model_of([conv, node("Add", ["h", "h"], "j"), norm("j", "y")], CONV | norm_of(4)),
    ),
    "norm behind a grouped transposed conv": (
        "batch_norm",
        model_of(
            [node("ConvTranspose", ["x", "w", "b"], "h", group=2), norm("h", "y")],
            {"w": numbers(4, 2, 3, 3), "b": CONV["b"]} | norm_of(4),
            shape=("n", 4, 5, 5),
        ),
    ),
    "norm behind a scaled gemm": (
        "batch_norm",
        model_of(
            [node("Gemm", ["x", "w", "b"], "h", alpha=0.5, transB=1), norm("h", "y")],
            {"w": numbers(4, 6), "b": CONV["b"]} | norm_of(4),
            shape=("n", 6),
        ),
    ),
    "negative strengths": (
        "strength",
        model_of([conv, node("Relu", ["h"], "r"), node("Mul", ["s", "r"], "y")], CONV | {"s": -STRENGTH["s"]}),
    ),
    "strength behind a tanh": (
        "strength",
        model_of([conv, node("Tanh", ["h"], "r"), node("Mul", ["s", "r"], "y")], CONV | STRENGTH),
    ),
    "strength of a rectifier that somebody else reads": (
        "strength",
        model_of(
            [conv, node("Relu", ["h"], "r"), node("Mul", ["s", "r"], "m"), node("Add", ["m", "r"], "y")],
            CONV | STRENGTH,
        ),
    ),
    "strength of a call that somebody else reads": (
        "strength",
        model_of(
            [conv, node("Relu", ["h"], "r"), node("Mul", ["s", "r"], "m"), node("Add", ["m", "h"], "y")],
            CONV | STRENGTH,
        ),
    ),
    "strength of a rectifier that is an output": (
        "strength",
        model_of([conv, node("Relu", ["h"], "r"), node("Mul", ["s", "r"], "y")], CONV | STRENGTH, outputs=("r", "y")),
    ),
    "strength of a call that is an output": (
        "strength",
        model_of([conv, node("Relu", ["h"], "r"), node("Mul", ["s", "r"], "y")], CONV | STRENGTH, outputs=("h", "y")),
    ),
    "strength of a call with shared weights": (
        "strength",
        model_of(
            [conv, node("Relu", ["h"], "r"), node("Mul", ["s", "r"], "m"), node("Conv", ["x", "w"], "k"),
             node("Add", ["m", "k"], "y")],
            CONV | STRENGTH,
        ),
    ),
    "strength along the width": (
        "strength",
        model_of(
            [conv, node("Relu", ["h"], "r"), node("Mul", ["s", "r"], "y")],
            CONV | {"s": numbers(4, low=0.1)},
            shape=("n", 3, 6, 6),
        ),
    ),
    "a branch that is silent but broadcasts": (
        "silent",
        model_of(
            [node("ReduceMean", ["x"], "h", keepdims=1), node("Mul", ["x", "zero"], "m"), node("Add", ["h", "m"], "y")],
            {"zero": np.zeros(1, np.float32)},
        ),
    ),
    "a silent branch beside the input": (
        "silent",
        model_of([node("Tanh", ["x"], "a"), node("Mul", ["zero", "a"], "m"), node("Add", ["x", "m"], "y")], {
            "zero": np.zeros(1, np.float32)
        }),
    ),
    "a silent branch of which both ends are outputs": (
        "silent",
        model_of([*joined[:-1], node("Add", ["h", "m"], "y")], CONV | OTHER | {"s": np.zeros((4, 1, 1), np.float32)},
                 outputs=("h", "y")),
    ),
    "a product with ones that broadcasts": (
        "idle",
        model_of([node("ReduceMean", ["x"], "h", keepdims=1), node("Mul", ["h", "one"], "y")], {
            "one": np.ones((3, 1, 1), np.float32)
        }),
    ),
    "a cast to another type": (
        "idle",
        model_of([node("Cast", ["x"], "i", to=TensorProto.INT64), node("Cast", ["i"], "y", to=TensorProto.FLOAT)], {}),
    ),
    "a transpose that turns": ("idle", model_of([node("Transpose", ["x"], "y", perm=[0, 1, 3, 2])], {})),
    "a large constant that would grow": (
        "constants",
        model_of([node("Expand", ["one", "shape"], "e"), node("Add", ["x", "e"], "y")], {
            "one": np.ones((1, 1), np.float32), "shape": np.array([1, 100_000])
        }, shape=("n", 100_000)),
    ),
    "a large weight that is also read as it is": (
        "constants",
        model_of([node("Transpose", ["w"], "t"), node("MatMul", ["x", "t"], "h"), node("MatMul", ["h", "w"], "y")], {
            "w": numbers(8, 20_000)
        }, shape=("n", 20_000)),
    ),
    "a constant that is an output": (
        "constants",
        model_of([node("Neg", ["w"], "z"), node("Relu", ["x"], "y")], {"w": CONV["w"]}, outputs=("y", "z")),
    ),
    "random numbers": (
        "constants",
        model_of([node("RandomNormal", [], "r", shape=[1]), node("Mul", ["r", "zero"], "z"),
                  node("Add", ["x", "z"], "y")], {"zero": np.zeros(1, np.float32)}),
    ),
    "norm in training": (
        "batch_norm",
        model_of([conv, helper.make_node("BatchNormalization", ["h", "n.scale", "n.shift", "n.mean", "n.var"],
                                         ["y", "mean", "var"], training_mode=1)], CONV | norm_of(4)),
    ),
    "norm behind a conv whose weight is computed": (
        "batch_norm",
        model_of([node("ReduceMean", ["x"], "m", keepdims=0), node("Mul", ["w", "m"], "v"),
                  node("Conv", ["x", "v"], "h"), norm("h", "y")], {"w": CONV["w"]} | norm_of(4)),
    ),
    "norm with numbers that are computed": (
        "batch_norm",
        model_of([conv, node("ReduceMean", ["x", "axes"], "m", keepdims=0), node("Slice", ["m", "0", "1"], "o"),
                  node("Expand", ["o", "4"], "v"), node("Abs", ["v"], "p"),
                  node("BatchNormalization", ["h", "n.scale", "n.shift", "n.mean", "p"], "y")],
                 CONV | norm_of(4) | {"axes": np.array([0, 2, 3]), "0": np.array([0]), "1": np.array([1]),
                                      "4": np.array([4])}),
    ),
    "a dropout that drops": (
        "idle",
        model_of([conv, node("Dropout", ["h", "ratio", "mode"], "d"), node("Relu", ["d"], "y")], CONV | {
            "ratio": np.float32(0), "mode": np.array(True)
        }),
    ),
    "whole numbers": (
        "strength",
        model_of([node("Cast", ["x"], "i", to=TensorProto.INT32), node("Relu", ["i"], "r"),
                  node("Mul", ["r", "two"], "m"), node("Cast", ["m"], "y", to=TensorProto.FLOAT)],
                 {"two": np.array(2, np.int32)}),
    ),
    "an identity between two outputs": (
        "idle",
        model_of([conv, node("Identity", ["h"], "y")], CONV, outputs=("h", "y")),
    ),
    "a strength of a call that somebody else reads": (
        "scale",
        model_of([conv, node("Mul", ["s", "h"], "m"), node("Add", ["m", "h"], "y")], CONV | STRENGTH),
    ),
    "a strength of a call that is an output": (
        "scale", model_of([conv, node("Mul", ["s", "h"], "y")], CONV | STRENGTH, outputs=("h", "y")),
    ),
    "a strength along the width": (
        "scale", model_of([conv, node("Mul", ["s", "h"], "y")], CONV | {"s": numbers(4)}, shape=("n", 3, 6, 6)),
    ),
    "a strength of a product with a stack": (
        "scale",
        model_of([node("MatMul", ["x", "w"], "h"), node("Mul", ["h", "s"], "y")], {
            "w": numbers(2, 6, 4), "s": numbers(4)
        }, shape=("n", 2, 5, 6)),
    ),
    "a gate that may be negative": (
        "gate",
        model_of([conv, node("Relu", ["h"], "r"), node("Tanh", ["r"], "t"), node("Mul", ["t", "h"], "g"),
                  node("Relu", ["g"], "y")], CONV),
    ),
    "a gate with less than one added": (
        "gate", model_of([*gated, node("Relu", ["g"], "y")], CONV | ONE | {"one": np.float32(0.5)}),
    ),
    "a gate of what is not rectified": (
        "gate",
        model_of([conv, node("Sigmoid", ["h"], "s"), node("Mul", ["s", "h"], "g"), node("Relu", ["g"], "y")], CONV),
    ),
    "a gate that somebody else reads": (
        "gate",
        model_of([*gated, node("Relu", ["g"], "k"), node("Add", ["g", "k"], "y")], CONV | ONE),
    ),
    "a gate that is an output": (
        "gate", model_of([*gated, node("Relu", ["g"], "y")], CONV | ONE, outputs=("g", "y")),
    ),
    "two calls with other settings": (
        "shared",
        model_of([node("Softmax", ["x"], "h", axis=1), node("Softmax", ["x"], "k", axis=2),
                  node("Add", ["h", "k"], "y")], {}),
    ),
    "two calls alike of which the second is an output": (
        "shared",
        model_of([node("Tanh", ["x"], "h"), node("Tanh", ["x"], "y"), node("Relu", ["h"], "z")], {},
                 outputs=("z", "y")),
    ),
    "two draws": (
        "shared",
        model_of([node("RandomNormal", [], "r", shape=[1]), node("RandomNormal", [], "q", shape=[1]),
                  node("Sub", ["r", "q"], "d"), node("Mul", ["d", "zero"], "z"), node("Add", ["x", "z"], "y")],
                 {"zero": np.zeros(1, np.float32)}),
    ),
    "a reshape that keeps a size": (
        "turns",
        model_of([node("Reshape", ["x", "first"], "f"), node("Reshape", ["f", "second"], "y")],
                 {"first": np.array([0, 25, 3]), "second": np.array([0, 0, 3])}),
    ),
    "an axis that comes where another goes": (
        "turns",
        model_of([node("Unsqueeze", ["x", "0"], "u"), node("Transpose", ["u"], "t", perm=[1, 0, 2, 3, 4]),
                  node("Squeeze", ["t", "2"], "y")], {"0": np.array([0]), "2": np.array([2])}, shape=("n", 1, 5, 5)),
    ),
    "an axis that comes and goes in a turn that is an output": (
        "turns",
        model_of([node("Unsqueeze", ["x", "1"], "u"), node("Transpose", ["u"], "t", perm=[0, 3, 1, 2, 4]),
                  node("Squeeze", ["t", "2"], "y")], {"1": np.array([1]), "2": np.array([2])}, outputs=("y", "t")),
    ),
    "half precision, which would lose the product": (
        "scale",
        model_of([node("Cast", ["x"], "i", to=TensorProto.FLOAT16), node("Conv", ["i", "w"], "h"),
                  node("Mul", ["h", "s"], "m"), node("Cast", ["m"], "y", to=TensorProto.FLOAT)],
                 {"w": (CONV["w"] / 1000).astype(np.float16), "s": (STRENGTH["s"] / 1000).astype(np.float16)}),
    ),
    "keys whose sizes come back in the old order": (
        "turns", model_of(turned_keys(order=("lead", "before", "last")), KEY_SIZES, shape=("n", 3, 5, 4)),
    ),
    "a mean that somebody else reads": (
        "flat_mean",
        model_of(pooled(node("Flatten", ["m"], "f"), node("Relu", ["m"], "z"), node("Relu", ["f"], "y")), CONV | MEAN,
                 outputs=("y", "z")),
    ),
    "a mean that is an output": (
        "flat_mean", model_of(pooled(node("Flatten", ["m"], "y")), CONV | MEAN, outputs=("y", "m")),
    ),
    "a mean over one axis, and a flattening": (
        "flat_mean", model_of(pooled(node("Flatten", ["m"], "y")), CONV | {"axes": np.array([3])}),
    ),
    "a mean over rows, and a reshape that moves sizes": (
        "flat_mean",
        model_of(pooled(node("Reshape", ["m", "other"], "y")), CONV | {"axes": np.array([1]), "other": np.array(
            [-1, 9])}),
    ),
    "a mean and a reshape to another order": (
        "flat_mean",
        model_of(pooled(node("Reshape", ["m", "other"], "y")), CONV | {"axes": np.array([3]), "other": np.array(
            [-1, 3, 4])}),
    ),
    "a mean and a squeeze of another axis": (
        "flat_mean",
        model_of(pooled(node("Squeeze", ["m", "2"], "y")), CONV | MEAN | {"2": np.array([2])}),
    ),
    "a mean that drops its axes": (
        "flat_mean", model_of(pooled(node("Reshape", ["m", "flat"], "y"), keepdims=0), CONV | MEAN | {
            "flat": np.array([-1, 2])
        }),
    ),
    "sizes of another tensor": (
        "known_sizes", model_of(joined_directions(behind="x"), PLACES, shape=("n", 2, 7, 4)),
    ),
    "tokens that are looked up backwards": ("own_places", looked_up(counted="backwards")),
    "some tokens that are looked up": ("own_places", looked_up(counted="some", g=("n", 1, 1, 5))),
    "rows from the second on": ("own_places", looked_up(first="1", g=("m", 1, 1, 7))),
    "every second row": ("own_places", looked_up(step="2", g=("m", 1, 1, 7))),
    "a resize whose own height is free": ("resizes", model_of(resized(), PLANE, shape=("n", 3, "h", 5))),
    "a resize whose factor rounds to another size": (
        "resizes", model_of(resized(), {"plane": np.array([13, 5])}, shape=("n", 3, 11, 5)),
    ),
    "a resize whose factor rounds to another size in double precision": (
        "resizes", model_of(resized(), {"plane": np.array([7, 5])}, shape=("n", 3, 3, 5)),
    ),
    "a resize that keeps what is long": (
        "resizes", model_of(resized(keep_aspect_ratio_policy="not_larger"), PLANE),
    ),
    "a product of two sizes that are free": (
        "known_sizes", model_of(joined_directions(), PLACES, shape=("n", "d", 7, "u")),
    ),
    "an axis that is taken away where others are moved": (
        "turns",
        model_of([node("Transpose", ["x"], "t", perm=[0, 3, 1, 2]), node("Squeeze", ["t", "2"], "y")],
                 {"2": np.array([2])}, shape=("n", 1, 5, 4)),
    ),
    "a gelu by tanh": ("gelu", model_of([conv, node("Gelu", ["h"], "y", approximate="tanh")], CONV)),
    "a mask that leaves nothing in a row": (
        "empty_rows", model_of(attention(masked), ZERO | {"mask": np.where(np.eye(5) > 0, INFINITE, CAUSAL)}),
    ),
    "a mask of one infinite number a row": (
        "empty_rows", model_of(attention(masked), ZERO | {"mask": np.array([[0], [-np.inf]] * 2 + [[0]], np.float32)}),
    ),
    "a mask that is infinite where the input says": (
        "empty_rows", model_of(attention(chosen), ZERO | {"low": INFINITE}),
    ),
    "a mask that is no number": (
        "empty_rows", model_of(attention(masked), ZERO | {"mask": np.full((5, 5), np.nan, np.float32)}),
    ),
    "two masks of large numbers, whose sum is infinite": (
        "empty_rows",
        model_of(attention([*chosen[:2], node("Add", ["mask", "mask"], "m"), node("Add", ["s", "m"], "a")]),
                 ZERO | {"low": LOWEST}),
    ),
    "a mask times a large number": (
        "empty_rows",
        model_of(attention([*chosen[:2], node("Mul", ["mask", "two"], "m"), node("Add", ["s", "m"], "a")]),
                 ZERO | {"low": LOWEST, "two": np.float32(2)}),
    ),
    "a causal mask, and a softmax over columns": (
        "empty_rows", model_of(attention(masked, axis=2), ZERO | {"mask": CAUSAL}),
    ),
    "what is no number becomes another": (
        "empty_rows", model_of(attention(scores="s", zero="one"), {"one": np.float32(1)}),
    ),
    "a softmax of the input, in which anything may be": (
        "empty_rows",
        model_of([node("Softmax", ["x"], "p"), node("IsNaN", ["p"], "n"), node("Where", ["n", "zero", "p"], "y")],
                 ZERO),
    ),
    "a quotient that may be infinite": (
        "empty_rows",
        model_of(attention([node("Div", ["s", "zero"], "a")]), ZERO),
    ),
    "an identity from input to output": ("idle", model_of([node("Identity", ["x"], "y")], {})),
}  # fmt: skip


@pytest.mark.parametrize("case", NEVER)
def test_it_leaves_alone_what_it_must_not_touch(case: str) -> None:
    name, before = NEVER[case]
    after, changed = rewritten(before, name)
    assert_same(before, after)
    assert changed == 0 and sorted(operators(after)) == sorted(operators(before))


@pytest.mark.parametrize("rewrite", REWRITES)
@pytest.mark.parametrize("case", [*APPLIES, *NEVER])
def test_no_rewrite_changes_any_number(case: str, rewrite: str) -> None:
    before = (APPLIES.get(case) or NEVER[case])[1]
    assert_same(before, rewritten(before, rewrite)[0])


def test_shapes_that_are_not_known_are_not_guessed() -> None:
    """Without shapes, a product with ones may broadcast: it has to stay."""
    before = model_of([node("ReduceMean", ["x"], "h", keepdims=1), node("Mul", ["h", "one"], "m"),
                       node("Relu", ["m"], "y")], {"one": np.ones((3, 1, 1), np.float32)})  # fmt: skip
    del before.graph.value_info[:]
    assert_same(before, rewritten(before, "idle")[0])
    nodes = [node("ReduceMean", ["x"], "h", keepdims=1), node("Mul", ["x", "zero"], "m")]
    nodes += [node("Add", ["h", "m"], "k"), node("Relu", ["k"], "y")]
    silent = model_of(nodes, {"zero": np.zeros(1, np.float32)})
    del silent.graph.value_info[:]
    assert_same(silent, rewritten(silent, "silent")[0])


@pytest.mark.parametrize("calls", [2, 3])
@pytest.mark.parametrize("bias", [False, True])
def test_calls_that_share_a_weight_each_get_their_own(calls: int, bias: bool) -> None:
    constants = {"w": numbers(3, 3, 1, 1)} | ({"b": numbers(3, seed=9)} if bias else {})
    nodes, source = [], "x"
    for index in range(calls):
        constants |= norm_of(3, seed=10 * index, name=f"n{index}")
        nodes += [node("Conv", [source, "w", *(["b"] if bias else [])], f"h{index}")]
        nodes += [norm(f"h{index}", f"k{index}", name=f"n{index}")]
        source = f"r{index}" if index < calls - 1 else "y"
        nodes += [node("Relu", [f"k{index}"], source)]
    before = model_of(nodes, constants)
    after, changed = rewritten(before, "batch_norm")
    assert changed == calls and "BatchNormalization" not in operators(after)
    assert_same(before, after)


# ── graphs inside the graph ──────────────────────────────────────────────────────────────────────


def branch(name: str, nodes: Nodes) -> onnx.GraphProto:
    output = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)
    return helper.make_graph(list(nodes), name, [], [output])


def either(source: str, output: str, then: Nodes, other: Nodes) -> Nodes:
    """Nodes that choose by the sum of `source`."""
    return [
        node("ReduceSum", [source], f"{output}.sum", keepdims=0),
        node("Greater", [f"{output}.sum", "nothing"], f"{output}.loud"),
        node("If", [f"{output}.loud"], output, then_branch=branch("then", then), else_branch=branch("else", other)),
    ]


NOTHING = {"nothing": np.zeros((), np.float32)}
ONE, NONE_AT_ALL = {"one": np.ones((4, 1, 1), np.float32)}, {"none": np.zeros((4, 1, 1), np.float32)}
INSIDE: dict[str, tuple[onnx.ModelProto, set[str]]] = {  # the model, and what has to be left of it
    "norm whose input is read inside": (
        model_of([conv, norm("h", "k"), *either("k", "i", [node("Relu", ["h"], "r")], [node("Tanh", ["h"], "q")]),
                  node("Add", ["k", "i"], "y")], CONV | norm_of(4) | NOTHING),
        {"BatchNormalization"},
    ),
    "norm whose output is read inside": (
        model_of([conv, norm("h", "k"), *either("x", "i", [node("Relu", ["k"], "r")], [node("Tanh", ["k"], "q")]),
                  node("Abs", ["i"], "y")], CONV | norm_of(4) | NOTHING),
        {"Conv"},
    ),
    "norm behind a conv whose weight is read inside": (
        model_of([conv, norm("h", "k"), *either("x", "i", [node("Conv", ["x", "w"], "r")],
                                                [node("Conv", ["x", "w", "b"], "q")]),
                  node("Add", ["k", "i"], "y")], CONV | norm_of(4) | NOTHING),
        {"Conv"},
    ),
    "strength of a rectifier that is read inside": (
        model_of([conv, node("Relu", ["h"], "r"), node("Mul", ["s", "r"], "m"),
                  *either("x", "i", [node("Abs", ["r"], "p")], [node("Tanh", ["m"], "q")]),
                  node("Add", ["i", "m"], "y")], CONV | STRENGTH | NOTHING),
        {"Mul"},
    ),
    "strength of a conv whose bias is read inside": (
        model_of([conv, node("Relu", ["h"], "r"), node("Mul", ["s", "r"], "m"),
                  *either("x", "i", [node("Conv", ["x", "v", "b"], "p")], [node("Conv", ["x", "v"], "q")]),
                  node("Add", ["i", "m"], "y")], CONV | STRENGTH | NOTHING | {"v": OTHER["v"]}),
        {"Mul"},
    ),
    "an identity that is read inside": (
        model_of([conv, node("Identity", ["h"], "k"),
                  *either("h", "i", [node("Relu", ["k"], "r")], [node("Tanh", ["k"], "q")]),
                  node("Add", ["h", "i"], "y")], CONV | NOTHING),
        {"Add"},
    ),
    "an identity of the input that is read inside": (
        model_of([node("Identity", ["x"], "k"),
                  *either("x", "i", [node("Relu", ["k"], "r")], [node("Tanh", ["k"], "q")]),
                  node("Abs", ["i"], "y")], NOTHING),
        {"Abs"},
    ),
    "an identity behind a branch, at the end": (
        model_of([*either("x", "i", [node("Relu", ["x"], "r")], [node("Tanh", ["x"], "q")]),
                  node("Identity", ["i"], "y")], NOTHING),
        set(),
    ),
    "a silent sum that is read inside": (
        model_of([*joined, *either("x", "i", [node("Relu", ["j"], "r")], [node("Tanh", ["m"], "q")]),
                  node("Abs", ["i"], "y")], CONV | OTHER | NOTHING | {"s": np.zeros((4, 1, 1), np.float32)}),
        {"Mul"},
    ),
    "a constant that is made outside and read inside": (
        model_of([node("Transpose", ["v"], "t", perm=[1, 0, 2, 3]),
                  *either("x", "i", [node("Conv", ["x", "t"], "r")], [node("Conv", ["x", "w"], "q")]),
                  node("Abs", ["i"], "y")], CONV | NOTHING | {"v": numbers(3, 4, 3, 3)}),
        {"Abs"},
    ),
    "a branch inside a branch": (
        model_of([conv, node("Identity", ["h"], "k"), *either("x", "i", [
            *either("k", "deep", [node("Mul", ["k", "one"], "r")], [node("Add", ["k", "none"], "q")]),
            node("Neg", ["deep"], "p"),
        ], [node("Conv", ["x", "w", "b"], "z")]), node("Abs", ["i"], "y")], CONV | NOTHING | ONE | NONE_AT_ALL),
        {"Abs"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("large", [1, 2**18])
@pytest.mark.parametrize("case", INSIDE)
def test_what_is_read_inside_a_branch_keeps_its_numbers(case: str, large: int) -> None:
    before, left = INSIDE[case]
    after = folding.fold(folding.Written(before, large=large), (), ()).whole()
    assert_same(before, after)
    assert left <= set(operators(after)) and "Identity" not in operators(after)
    (inner,) = (node for node in after.graph.node if node.op_type == "If")
    assert not [tensor.name for attribute in inner.attribute for tensor in attribute.g.initializer]


def test_a_loop_reads_what_is_outside() -> None:
    body = helper.make_graph(
        [node("Mul", ["state", "k"], "scaled"), node("Add", ["scaled", "h"], "next"), node("Identity", ["go"], "on")],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, ()),
            helper.make_tensor_value_info("go", TensorProto.BOOL, ()),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, ("n", 4, 3, 3)),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, ()),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, ("n", 4, 3, 3)),
        ],
    )
    nodes = [conv, norm("h", "k"), node("Loop", ["times", "", "k"], "l", body=body), node("Identity", ["l"], "y")]
    before = model_of(nodes, CONV | norm_of(4) | {"times": np.array(3)})
    before.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, ("n", 4, 3, 3)))
    after = folding.fold(folding.Written(before), (), ()).whole()
    assert_same(before, after)
    assert operators(after) == ["Conv", "BatchNormalization", "Loop"]


# ── weights that stay where they are ─────────────────────────────────────────────────────────────


def test_a_large_weight_is_changed_without_being_read_until_it_is_written() -> None:
    weight, reads = numbers(3, 4, 90, 90) / 100, []
    nodes = [node("Transpose", ["v"], "w", perm=[1, 0, 2, 3]), node("Conv", ["x", "w"], "h"), norm("h", "k")]
    nodes += [node("Relu", ["k"], "r"), node("Mul", ["s", "r"], "y")]
    before = model_of(nodes, {"v": weight} | STRENGTH | norm_of(4), shape=("n", 3, 91, 91))
    apart = onnx.ModelProto()
    apart.CopyFrom(before)
    (stored,) = (tensor for tensor in apart.graph.initializer if tensor.name == "v")
    stored.CopyFrom(reference("v", weight.shape, TensorProto.FLOAT, "elsewhere"))

    def load() -> np.ndarray:
        reads.append("v")
        return weight

    folded = folding.fold(folding.Written(apart, {"elsewhere": load}), (), ())
    assert operators(folded.proto) == ["Conv", "Relu"] and folded.proto.ByteSize() < 10_000
    assert len(reads) <= 1  # once, to see what turning it gives
    assert_same(before, folded.whole())


@pytest.mark.parametrize("case", [*APPLIES, *NEVER])
def test_folding_with_all_weights_apart_is_the_same(case: str) -> None:
    before = (APPLIES.get(case) or NEVER[case])[1]
    apart = folding.fold(folding.Written(before, large=1), (), ())
    assert apart.proto.ByteSize() < 30_000
    written = io.BytesIO()
    write_whole(written, apart)
    assert written.getvalue() == apart.whole().SerializeToString()
    assert (
        apart.whole().SerializeToString() == folding.fold(folding.Written(before), (), ()).whole().SerializeToString()
    )


# ── recurrent layers ─────────────────────────────────────────────────────────────────────────────


def recurrent(op: str, gates: int, state: dict[str, np.ndarray]) -> onnx.ModelProto:
    constants = {"w": numbers(1, gates * 4, 3), "r": numbers(1, gates * 4, 4, seed=1), **state}
    more = ["first", "cell"] if op == "LSTM" else ["first"]
    call = helper.make_node(op, ["x", "w", "r", "", "", *more], ["y"], hidden_size=4)
    return model_of([call], constants, shape=("n", 2, 3))  # [length, batch, features]


@pytest.mark.parametrize(("op", "gates"), [("GRU", 3), ("LSTM", 4), ("RNN", 1)])
@pytest.mark.parametrize("zero", [False, True])
def test_only_a_zero_state_goes(op: str, gates: int, zero: bool) -> None:
    names = ("first", "cell") if op == "LSTM" else ("first",)
    state = {name: np.zeros((1, 2, 4), np.float32) if zero else numbers(1, 2, 4, seed=2) for name in names}
    before = recurrent(op, gates, state)
    after, changed = rewritten(before, "zero_state")
    assert changed == (len(names) if zero else 0)
    assert any(name in after.graph.node[0].input for name in names) is not zero
    assert_same(before, after)


def test_an_expanded_zero_state_goes() -> None:
    constants = {"w": numbers(1, 12, 3), "r": numbers(1, 12, 4, seed=1), "zero": np.zeros((1, 1, 4), np.float32)}
    nodes = [
        node("Constant", [], "shape", value=numpy_helper.from_array(np.array([1, 2, 4]), "shape")),
        node("Expand", ["zero", "shape"], "first"),
        helper.make_node("GRU", ["x", "w", "r", "", "", "first"], ["y"], hidden_size=4),
    ]
    before = model_of(nodes, constants, shape=("n", 2, 3))
    after, changed = rewritten(before, "zero_state")
    assert changed == 1 and operators(after) == ["GRU"]
    assert_same(before, after)


@pytest.mark.parametrize("outputs", [["y"], ["", "y"], ["all", "", "y"], ["all", "last", "y"]])
def test_an_lstm_has_all_of_its_outputs(outputs: list[str]) -> None:
    constants = {"w": numbers(1, 16, 3), "r": numbers(1, 16, 4, seed=1)}
    before = model_of([helper.make_node("LSTM", ["x", "w", "r"], outputs, hidden_size=4)], constants, shape=("n", 2, 3))
    after, changed = rewritten(before, "lstm_outputs")
    assert changed == (len(outputs) < 3 or "" in outputs) and rewritten(after, "lstm_outputs")[1] == 0
    assert all(after.graph.node[0].output) and len(after.graph.node[0].output) == 3
    assert_same(before, after)


# ── functions that are written out ───────────────────────────────────────────────────────────────


def test_new_names_are_no_names_that_there_are() -> None:
    nodes = [conv, node("Gelu", ["h"], "y"), node("Neg", ["h"], "y_half"), node("Abs", ["h"], "y_one")]
    before = model_of(nodes, CONV, outputs=("y", "y_half", "y_one"))
    after, changed = rewritten(before, "gelu")
    assert changed == 1
    assert_same(before, after)
    constants = {"w": numbers(1, 16, 3), "r": numbers(1, 16, 4, seed=1)}
    nodes = [
        helper.make_node("LSTM", ["x", "w", "r"], ["y"], hidden_size=4),
        node("Neg", ["y"], "y_hidden"),
    ]
    before = model_of(nodes, constants, shape=("n", 2, 3), outputs=("y", "y_hidden"))
    after, changed = rewritten(before, "lstm_outputs")
    assert changed == 1
    assert_same(before, after)


def test_a_gelu_of_a_type_that_numpy_has_not_is_left_alone() -> None:
    nodes = [
        node("Cast", ["x"], "i", to=TensorProto.BFLOAT16),
        node("Gelu", ["i"], "g"),
        node("Cast", ["g"], "y", to=TensorProto.FLOAT),
    ]
    after, changed = rewritten(model_of(nodes, {}), "gelu")
    assert changed == 0 and "Gelu" in operators(after)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_a_gelu_has_numbers_of_its_own_type(dtype: type[np.floating]) -> None:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes = [
        node("Cast", ["x"], "i", to=kind),
        node("Gelu", ["i"], "g"),
        node("Cast", ["g"], "y", to=TensorProto.FLOAT),
    ]
    before = model_of(nodes, {})
    after, changed = rewritten(before, "gelu")
    assert changed == 1 and {t.data_type for t in after.graph.initializer} == {kind}
    onnx.checker.check_model(after, full_check=True)


def test_onnxruntime_puts_a_gelu_together_again(tmp_path: Path) -> None:
    after, _ = rewritten(model_of([conv, node("Gelu", ["h"], "g"), node("Mul", ["g", "g"], "y")], CONV), "gelu")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(after.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = operators(onnx.load(tmp_path / "optimised.onnx"))
    assert "Gelu" in found and "Erf" not in found


def test_a_row_that_is_masked_throughout_by_large_numbers_is_as_torch_has_it() -> None:
    before = model_of(attention(chosen), ZERO | {"low": LOWEST})
    after = rewritten(before, "empty_rows")[0]
    inputs = -np.abs(numbers(1, 3, 5, 5))
    for model in (before, after):
        np.testing.assert_allclose(outputs_of(model, inputs)[0].sum(-1), 1, atol=1e-6)


# ── norms that MNN would take for others ─────────────────────────────────────────────────────────


def spelled_norm(
    axes: Sequence[int], weight: np.ndarray, shift: np.ndarray, *, by: str = "Div", last: str = "Mul"
) -> onnx.ModelProto:
    """(x - mean(x)) / sqrt(mean((x - mean(x))^2) + epsilon) * weight + shift, [n, 3, 5, 5]."""
    quotient = [node("Div", ["c", "s"], "q")]
    if by != "Div":
        inverse = node("Reciprocal", ["s"], "r") if by == "Reciprocal" else node("Div", ["one", "s"], "r")
        quotient = [inverse, node("Mul", ["c", "r"], "q")]
    nodes = [
        node("ReduceMean", ["x", "axes"], "m"), node("Sub", ["x", "m"], "c"), node("Mul", ["c", "c"], "p"),
        node("ReduceMean", ["p", "axes"], "v"), node("Add", ["v", "epsilon"], "a"), node("Sqrt", ["a"], "s"),
        *quotient, node(last, ["q", "weight"], "w"), node("Add", ["w", "shift"], "y"),
    ]  # fmt: skip
    constants = {"axes": np.array(axes), "epsilon": np.float32(1e-3), "weight": weight, "shift": shift}
    return model_of(nodes, constants | ({"one": np.float32(1)} if by == "One" else {}))


UNUSUAL = {
    "one factor": ([-1], np.array(0.5, np.float32), numbers(5)),
    "one factor in a row": ([-1], numbers(1), numbers(5)),
    "a factor a row": ([-1], numbers(5, 1), numbers(5)),
    "a factor everywhere": ([-1], numbers(3, 5, 5), numbers(5)),
    "a shift a row": ([-1], numbers(5), numbers(5, 1)),
    "a factor along another axis": ([2], numbers(5), numbers(5)),
    "a factor along one of the axes": ([2, 3], numbers(5), numbers(5)),
    "a factor with an axis of its own": ([-1], numbers(1, 1, 1, 1, 5), numbers(5)),
    "axes apart": ([1, 3], numbers(3, 1, 5), numbers(3, 1, 5)),
    "axes backwards": ([2, 1], numbers(3, 5, 1), numbers(3, 5, 1)),
}
USUAL = {
    "a factor a place": ([-1], numbers(5), numbers(5)),
    "with axes of one": ([3], numbers(1, 1, 5), numbers(1, 5)),
    "over two axes": ([2, 3], numbers(5, 5), numbers(5, 5)),
    "over channels": ([1], numbers(3, 1, 1), numbers(3, 1, 1)),
    "a shift of another size": ([-1], numbers(5), np.array(0.5, np.float32)),
}


@pytest.mark.parametrize("last", ["Mul", "Div"])
@pytest.mark.parametrize("by", ["Div", "Reciprocal", "One"])
@pytest.mark.parametrize("case", UNUSUAL)
def test_a_norm_that_mnn_takes_for_another_is_written_anew(case: str, by: str, last: str) -> None:
    before = spelled_norm(*UNUSUAL[case], by=by, last=last)
    after, changed = rewritten(before, "norms")
    assert changed == 1 and rewritten(after, "norms")[1] == 0
    inputs = numbers(2, 3, 5, 5)
    np.testing.assert_array_equal(outputs_of(after, inputs)[0], outputs_of(before, inputs)[0])


@pytest.mark.parametrize("by", ["Div", "Reciprocal", "One"])
@pytest.mark.parametrize("case", USUAL)
def test_a_norm_of_the_usual_form_is_left_to_the_runtimes(case: str, by: str) -> None:
    before = spelled_norm(*USUAL[case], by=by)
    after, changed = rewritten(before, "norms")
    assert changed == 0 and operators(after) == operators(before)


def test_a_norm_over_a_free_size_is_written_anew() -> None:
    nodes = [
        node("Mul", ["x", "x"], "p"), node("ReduceMean", ["p", "axes"], "v"), node("Add", ["v", "epsilon"], "a"),
        node("Sqrt", ["a"], "s"), node("Div", ["x", "s"], "q"), node("Mul", ["q", "weight"], "y"),
    ]  # fmt: skip
    constants = {"axes": np.array([1]), "epsilon": np.float32(1e-3), "weight": numbers(4)}
    assert rewritten(model_of(nodes, constants, shape=("n", "length")), "norms")[1] == 1
    assert rewritten(model_of(nodes, constants, shape=("n", 4)), "norms")[1] == 0


# ── zeros around what a maximum is taken of ──────────────────────────────────────────────────────


def padded(*, mode: str = "constant", value: float | None = None, pool: str = "MaxPool") -> onnx.ModelProto:
    """The largest of negative numbers with something around them."""
    nodes = [
        node("Abs", ["x"], "a"),
        node("Neg", ["a"], "n"),
        node("Pad", ["n", "pads", *([] if value is None else ["value"])], "p", mode=mode),
        node(pool, ["p"], "y", kernel_shape=[3, 3], strides=[2, 2]),
    ]
    given = {} if value is None else {"value": np.float32(value)}
    return model_of(nodes, {"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]), **given})


def optimised(model: onnx.ModelProto, inputs: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": inputs})[0]


@pytest.mark.parametrize("value", [None, 0.0])
def test_zeros_around_a_maximum_stay_when_onnxruntime_optimises(value: float | None) -> None:
    before, inputs = padded(value=value), numbers(2, 3, 5, 5)
    after, changed = rewritten(before, "zero_padding")
    assert changed == 1 and rewritten(after, "zero_padding")[1] == 0
    assert_same(before, after)
    np.testing.assert_allclose(optimised(after, inputs), outputs_of(before, inputs)[0], atol=1e-6)


@pytest.mark.parametrize(
    "options", [{"mode": "reflect"}, {"value": 0.5}, {"pool": "AveragePool"}, {"value": 0.0, "pool": "LpPool"}]
)
def test_other_padding_is_left_alone(options: dict[str, object]) -> None:
    before = padded(**options)  # type: ignore[arg-type]
    after, changed = rewritten(before, "zero_padding")
    assert changed == 0
    assert_same(before, after)


# ── all of them together ─────────────────────────────────────────────────────────────────────────


@st.composite
def networks(draw: st.DrawFn) -> onnx.ModelProto:
    """Convolutions, norms, sums, products and rectifiers in any order, over [n, 3, 4, 4]."""
    nodes: list[onnx.NodeProto] = []
    constants: dict[str, np.ndarray] = {}
    values = ["x"]
    kernels: list[str] = []
    for index in range(draw(st.integers(1, 9))):
        source, output = draw(st.sampled_from(values[-4:])), f"t{index}"
        seed = 100 * index
        match draw(st.sampled_from(("Conv", "Conv", "Norm", "Add", "Mul", "Relu", "Identity", "Zero", "Either"))):
            case "Either":
                other = draw(st.sampled_from(values))
                then, second = [node("Relu", [other], f"p{index}")], [node("Add", [other, source], f"e{index}")]
                constants |= NOTHING
                nodes += either(draw(st.sampled_from(values)), output, then, second)
            case "Conv":
                weight = draw(st.sampled_from([*kernels, "new"]))
                if weight == "new":
                    weight = f"w{index}"
                    kernels.append(weight)
                    constants[weight] = numbers(3, 3, 3, 3, seed=seed)
                inputs = [source, weight]
                if draw(st.booleans()):
                    inputs.append(f"b{index}")
                    constants[inputs[-1]] = numbers(3, seed=seed + 1)
                nodes.append(node("Conv", inputs, output, pads=[1, 1, 1, 1]))
            case "Norm":
                constants |= norm_of(3, seed=seed, name=f"n{index}")
                nodes.append(norm(source, output, name=f"n{index}"))
            case "Add":
                nodes.append(node("Add", [source, draw(st.sampled_from(values))], output))
            case "Mul":
                shape = draw(st.sampled_from([(3, 1, 1), (1,), (4,), (4, 1), (1, 3, 1, 1), (3, 4, 4), ()]))
                value = numbers(*shape, seed=seed, low=draw(st.sampled_from((-1.0, 0.1))))
                constants[f"s{index}"] = np.asarray(
                    draw(st.sampled_from([value, value * 0, value * 0 + 1])), np.float32
                )
                inputs = [source, f"s{index}"]
                nodes.append(node("Mul", inputs if draw(st.booleans()) else inputs[::-1], output))
            case "Zero":
                constants[f"z{index}"] = np.zeros((3, 1, 1), np.float32)
                nodes.append(node("Mul", [source, f"z{index}"], f"q{index}"))
                nodes.append(node("Add", [draw(st.sampled_from(values)), f"q{index}"], output))
            case operator:
                nodes.append(node(operator, [source], output))
        values.append(output)
    nodes.append(node("Identity", [values[-1]], "y"))
    model = model_of(nodes, constants, shape=("n", 3, 4, 4))
    if draw(st.integers(0, 3)) == 0:
        del model.graph.value_info[:]  # then no shape is known, and little can be folded
    return model


@settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(networks())
def test_folding_keeps_the_numbers_of_any_network(before: onnx.ModelProto) -> None:
    after = folding.fold(folding.Written(before), (), ()).whole()
    inputs = numbers(2, 3, 4, 4, seed=3)
    (expected,), (found,) = outputs_of(before, inputs), outputs_of(after, inputs)
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(found / scale, expected / scale, atol=2e-5)
    assert "Identity" not in operators(after) or len(after.graph.node) == 1


def test_sizes_that_the_exporter_noted_wrong_are_dropped() -> None:
    before = model_of([conv, node("Relu", ["h"], "y")], CONV)
    before.graph.value_info[0].type.tensor_type.shape.dim[2].dim_value = 9
    after = folding.fold(folding.Written(before), (), ()).whole()
    assert not after.graph.value_info
    assert_same(before, after)


def test_functions_are_taken_apart() -> None:
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 20, "own" : 1]>
        small (float[n, 3] x) => (float[n, 3] y, float[n, 3] z) { y = own.twice(x)
           z = own.twice(y) }
        <domain: "own", opset_import: ["" : 20]>
        twice (a) => (b) { two = Constant <value_float: float = 2.0>()
           b = Mul(a, two) }
    """)
    inner = ir.from_proto(model)
    ports = tuple(Port(name, "float32", ("batch", 3)) for name in ("in", "first", "second"))
    name_ports(inner, Signature(ports[:1], ports[1:], "first"))
    after = ir.to_proto(inner)
    name_sizes(after, Signature(ports[:1], ports[1:], "first"))
    check_standard(after)
    assert not after.functions and [entry.domain for entry in after.opset_import] == [""]
    assert [value.name for value in (*after.graph.input, *after.graph.output)] == ["in", "first", "second"]
    assert after.graph.output[1].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_a_gate_reads_no_rectifier_of_a_branch() -> None:
    """The rectifier within the branch makes a value that the graph around it does not have."""
    branch = helper.make_graph([node("Relu", ["h"], "inner")], "rectified", [], [
        helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)
    ])  # fmt: skip
    other = helper.make_graph([node("Neg", ["h"], "outer")], "turned", [], [
        helper.make_tensor_value_info("outer", TensorProto.FLOAT, None)
    ])  # fmt: skip
    nodes = [
        node("Relu", ["x"], "h"),
        node("ReduceSum", ["h"], "sum", keepdims=0),
        node("Greater", ["sum", "zero"], "positive"),
        helper.make_node("If", ["positive"], ["z"], then_branch=branch, else_branch=other),
        node("Sigmoid", ["z"], "g"),
        node("Mul", ["h", "g"], "m"),
        node("Relu", ["m"], "y"),
    ]
    before = model_of(nodes, {"zero": np.float32(0)})
    after, changed = rewritten(before, "gate")
    assert changed == 0
    assert_same(before, after)
