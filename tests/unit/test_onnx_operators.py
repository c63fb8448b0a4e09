"""ONNX operators as torch's: each computes what onnxruntime computes, before and after tracing with a free batch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx_tools import (
    assert_same,
    batch,
    check,
    expected,
    graph_of,
    i64,
    model_of,
    node,
    outputs_of,
    read,
    traced,
    weights,
    written,
)
from torch.export import Dim

Made = Callable[[], ModelProto]
Shapes = dict[str, tuple[int | str, ...]]
X = {"x": ("n", 4, 6)}
IMAGE = {"x": ("n", 3, 8, 8)}


def single(kind: str, shape: Shapes | None = None, opset: int = 20, /, **attributes: object) -> Made:
    """One operator on one input."""
    return lambda: model_of(graph_of([node(kind, ["x"], ["y"], **attributes)], {}, shape or X), opset)


def held(
    kind: str, values: dict[str, np.ndarray], shape: Shapes | None = None, opset: int = 20, /,
    **attributes: object,
) -> Made:  # fmt: skip
    """One operator on one input and constants, in that order; an empty name is an input that is not there."""
    names = ["x", *("" if name.startswith("none") else name for name in values)]
    there = {name: value for name, value in values.items() if not name.startswith("none")}
    return lambda: model_of(graph_of([node(kind, names, ["y"], **attributes)], there, shape or X), opset)


def of_a_number(kind: str) -> Made:
    """A reduction of what a reduction has brought to one number."""
    nodes = [node("ReduceMin", ["x"], ["s"], keepdims=0), node(kind, ["s"], ["y"], keepdims=0)]
    return lambda: model_of(graph_of(nodes, {}, X))


NONE = np.zeros(0)
CASES: dict[str, Made] = {
    # shapes
    "reshape": held("Reshape", {"to": i64(0, -1)}),
    "reshape that keeps a zero": held("Reshape", {"to": i64(-1, 3, 8)}, None, 14, allowzero=1),
    "flatten": single("Flatten", axis=1),
    "flatten all": single("Flatten", axis=0),
    "flatten to a column": single("Flatten", axis=3),
    "flatten in the middle": single("Flatten", axis=2),
    "squeeze 11": single("Squeeze", {"x": ("n", 1, 6)}, 11, axes=[1]),
    "squeeze 13": held("Squeeze", {"at": i64(1)}, {"x": ("n", 1, 6)}),
    "unsqueeze 11": single("Unsqueeze", None, 11, axes=[1, 4]),
    "unsqueeze 13": held("Unsqueeze", {"at": i64(-1, 0)}),
    "transpose": single("Transpose", perm=[0, 2, 1]),
    "transpose all": single("Transpose", {"x": (3, 4)}),
    "slice 9": single("Slice", None, 9, starts=[1], ends=[-1], axes=[2]),
    "slice 13": held("Slice", {"from": i64(1, 0), "to": i64(2**62, -1), "at": i64(1, 2), "by": i64(2, 1)}),
    "slice backwards": held("Slice", {"from": i64(-1), "to": i64(-(2**62)), "at": i64(2), "by": i64(-2)}),
    "slice backwards within": held("Slice", {"from": i64(4), "to": i64(1), "at": i64(-1), "by": i64(-1)}),
    "gather one": held("Gather", {"at": np.array(-1, np.int64)}, axis=1),
    "gather some": held("Gather", {"at": i64(2, 0, -1)}, axis=2),
    "gather a square": held("Gather", {"at": i64(0, 1, 2, 3).reshape(2, 2)}, axis=2),
    "gather elements": held("GatherElements", {"at": i64(0, -1).reshape(1, 1, 2)}, {"x": (1, 4, 6)}, axis=2),
    "gather nd": held("GatherND", {"at": i64(0, 1, 1, 0).reshape(2, 2)}, {"x": (2, 4, 6)}),
    "gather nd in a batch": held("GatherND", {"at": i64(1, 3).reshape(2, 1)}, {"x": (2, 4, 6)}, batch_dims=1),
    "expand": held("Expand", {"to": i64(3, 1, 4, 1)}),
    "tile": held("Tile", {"by": i64(1, 2, 1)}),
    "split 11": lambda: model_of(
        graph_of([node("Split", ["x"], ["a", "b"], axis=2, split=[2, 4])], {}, X, ["a", "b"]), 11
    ),
    "split 13": lambda: model_of(
        graph_of([node("Split", ["x", "s"], ["a", "b"], axis=2)], {"s": i64(5, 1)}, X, ["a", "b"]), 13
    ),
    "split unevenly": lambda: model_of(
        graph_of([node("Split", ["x"], ["a", "b"], axis=1, num_outputs=2)], {}, {"x": ("n", 5, 2)}, ["a", "b"]), 18
    ),
    "pad 10": single("Pad", None, 10, pads=[0, 1, 0, 0, 0, 2], value=1.5),
    "pad 18": held("Pad", {"by": i64(1, 2), "v": np.float32(3), "at": i64(2)}, None, 18),
    "pad by reflection": held("Pad", {"by": i64(0, 0, 1, 2, 0, 0, 2, 1)}, IMAGE, mode="reflect"),
    "pad by the edge": held("Pad", {"by": i64(0, 0, 2, 0, 0, 1)}, mode="edge"),
    "pad the width alone by reflection": held("Pad", {"by": i64(0, 0, 0, 2, 0, 0, 0, 1)}, IMAGE, mode="reflect"),
    "pad the width alone by the edge": held("Pad", {"by": i64(0, 0, 0, 2, 0, 0, 0, 1)}, IMAGE, mode="edge"),
    "pad the last of five by reflection": held(
        "Pad", {"by": i64(0, 0, 0, 0, 1, 0, 0, 0, 0, 2)}, {"x": ("n", 2, 2, 3, 4)}, mode="reflect"
    ),
    "split into one": lambda: model_of(
        graph_of([node("Split", ["x", "s"], ["a"], axis=2), node("Relu", ["a"], ["y"])], {"s": i64(6)}, X)
    ),
    "embedding by ids that count from the end": lambda: model_of(
        graph_of([node("Sub", ["x", "two"], ["ids"]), node("Gather", ["w", "ids"], ["y"])],
                 weights(w=(5, 3)) | {"two": i64(2)}, {"x": ("n", 4)}, types={"x": TensorProto.INT64})
    ),
    "one hot": lambda: model_of(
        graph_of(
            [node("OneHot", ["x", "d", "v"], ["y"], axis=-1)],
            {"d": i64(4), "v": np.array([-1, 2], np.float32)}, {"x": ("n", 3)}, types={"x": TensorProto.INT64},
        )
    ),
    "trilu": held("Trilu", {"k": np.array(1, np.int64)}, upper=0),
    "eye": single("EyeLike", {"x": (3, 5)}, k=1),
    # reductions
    "mean 13": single("ReduceMean", None, 13, axes=[1, -1], keepdims=0),
    "mean 18": held("ReduceMean", {"at": i64(2)}),
    "sum of all": single("ReduceSum", keepdims=0),
    "sum of nothing": single("ReduceSum", noop_with_empty_axes=1),
    "l2": held("ReduceL2", {"at": i64(1)}, keepdims=0),
    **{
        f"{kind} of nothing": single(kind, noop_with_empty_axes=1)
        for kind in ("ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceMax", "ReduceLogSumExp")
    },
    **{f"{kind} of a number": of_a_number(kind) for kind in ("ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceMean")},
    "log of the sum of nothing": lambda: model_of(
        graph_of([node("Exp", ["x"], ["e"]), node("ReduceLogSum", ["e"], ["y"], noop_with_empty_axes=1)], {}, X)
    ),
    "product of numbers": held("ReduceProd", {"at": i64(1, 2)}, keepdims=1),
    "log of the sum of exponentials": held("ReduceLogSumExp", {"at": i64(-1)}),
    "maximum": held("ReduceMax", {"at": i64(2)}),
    "cumulated": held("CumSum", {"at": np.array(1, np.int64)}, exclusive=1, reverse=1),
    "top": lambda: model_of(
        graph_of([node("TopK", ["x", "k"], ["y", "i"])], {"k": i64(2)}, X, ["y", "i"], {"i": TensorProto.INT64})
    ),
    # arithmetic
    "clip 10": single("Clip", None, 10, min=-0.5, max=0.5),
    "clip 13": held("Clip", {"none": NONE, "high": np.float32(0.3)}),
    "clip by tensors": lambda: model_of(
        graph_of([node("ReduceMin", ["x"], ["m"], keepdims=0), node("Clip", ["x", "m", "h"], ["y"])],
                 {"h": np.float32(0.1)}, X)
    ),
    "cast": single("Cast", to=TensorProto.FLOAT),
    "mod": held("Mod", {"by": np.array([0.7], np.float32)}, fmod=1),
    "whole division": lambda: model_of(
        graph_of([node("Div", ["x", "d"], ["y"])], {"d": i64(-3)}, X, types=dict.fromkeys("xy", TensorProto.INT64))
    ),
    "power": held("Pow", {"by": np.float32(2)}),
    "a number first": lambda: model_of(graph_of([node("Sub", ["one", "x"], ["y"])], {"one": np.float32(1)}, X)),
    "largest of three": lambda: model_of(
        graph_of([node("Max", ["x", "a", "b"], ["y"])], weights(a=(6,)) | {"b": np.float32(0)}, X)
    ),
    # layers
    "convolution with uneven padding": held(
        "Conv", weights(w=(4, 3, 3, 3), b=(4,)), IMAGE, pads=[0, 1, 2, 1], strides=[2, 1], kernel_shape=[3, 3]
    ),
    "same padding": held("Conv", weights(w=(4, 3, 3, 2)), IMAGE, auto_pad="SAME_UPPER", strides=[2, 3]),
    "same padding before": held("Conv", weights(w=(4, 3, 4, 4)), IMAGE, auto_pad="SAME_LOWER"),
    "groups in one dimension": held("Conv", weights(w=(4, 2, 3)), {"x": ("n", 4, 9)}, group=2, dilations=[2]),
    "transposed": held("ConvTranspose", weights(w=(3, 4, 3, 3), b=(4,)), IMAGE, strides=[2, 2], pads=[1, 1, 1, 1]),
    "transposed unevenly": held("ConvTranspose", weights(w=(3, 4, 3, 3)), IMAGE, strides=[2, 2], pads=[0, 1, 1, 0]),
    "transposed to the same, in strides beyond the kernel": held(
        "ConvTranspose", weights(w=(3, 4, 2, 2), b=(4,)), IMAGE, strides=[3, 4], auto_pad="SAME_UPPER"
    ),
    "transposed to a size beyond the full one": held(
        "ConvTranspose", weights(w=(3, 4, 2, 2), b=(4,)), IMAGE, strides=[3, 4], output_shape=[24, 32]
    ),
    "transposed to the same, from the end": held(
        "ConvTranspose", weights(w=(3, 4, 3, 3), b=(4,)), IMAGE, strides=[2, 1], auto_pad="SAME_LOWER"
    ),
    "transposed to a size": held(
        "ConvTranspose", weights(w=(3, 4, 3, 3)), IMAGE, strides=[2, 2], output_shape=[17, 16]
    ),
    "product": held("MatMul", weights(w=(6, 5))),
    "product of a stack": held("MatMul", weights(w=(4, 6, 5)), {"x": ("n", 4, 2, 6)}),
    "gemm": held("Gemm", weights(w=(6, 5), b=(5,)), {"x": ("n", 6)}),
    "gemm, scaled and transposed": held(
        "Gemm", weights(w=(5, 6), b=(1, 5)), {"x": (6, 3)}, transA=1, transB=1, alpha=0.5, beta=2.0
    ),
    "layer norm": held("LayerNormalization", weights(s=(6,), b=(6,)), axis=-1),
    "layer norm over two": held("LayerNormalization", weights(s=(4, 6)), axis=1, epsilon=1e-3),
    "layer norm with its statistics": lambda: model_of(
        graph_of([node("LayerNormalization", ["x", "s", "b"], ["y", "m", "d"], axis=1, epsilon=1e-3)],
                 weights(s=(4, 6), b=(4, 6)), X, ["y", "m", "d"])
    ),
    "layer norm with statistics that nothing reads": lambda: model_of(
        graph_of([node("LayerNormalization", ["x", "s"], ["y", "m", "d"])], weights(s=(6,)), X)
    ),
    "group norm": held("GroupNormalization", weights(s=(4,), b=(4,)), {"x": ("n", 4, 5)}, 21, num_groups=2),
    "instance norm": held("InstanceNormalization", weights(s=(3,), b=(3,)), IMAGE),
    "prelu": held("PRelu", weights(s=(6,))),
    "dropout 11": single("Dropout", None, 11, ratio=0.4),
    # resizing
    "resize to a size": held(
        "Resize", {"none1": NONE, "none2": NONE, "to": i64(1, 3, 12, 5)}, {"x": (1, 3, 8, 8)}, mode="linear"
    ),
    "resize by scales": held(
        "Resize", {"none": NONE, "by": np.array([1, 1, 2, 1.5], np.float32)}, IMAGE,
        mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor",
    ),
    "resize with corners": held(
        "Resize", {"none": NONE, "by": np.array([1, 1, 2, 2], np.float32)}, IMAGE,
        mode="linear", coordinate_transformation_mode="align_corners",
    ),
    "resize by cubes": held("Resize", {"none": NONE, "by": np.array([1, 1, 2, 2], np.float32)}, IMAGE, mode="cubic"),
    **{
        f"resize to the nearest by {y} and {x}, {place}, {rounding}": held(
            "Resize", {"none": NONE, "by": np.array([1, 1, y, x], np.float32)}, {"x": ("n", 2, 7, 10)},
            coordinate_transformation_mode=place, nearest_mode=rounding,
        )
        for place in ("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners")
        for rounding in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
        for y, x in ((0.5, 1.5), (3, 0.7), (2, 4))
    },
    "resize to the nearest as the defaults are": held(
        "Resize", {"none": NONE, "by": np.array([1, 1, 0.5, 1.5], np.float32)}, IMAGE
    ),
    "resize to the nearest 10": held("Resize", {"by": np.array([1, 1, 0.6, 1.5], np.float32)}, IMAGE, 10),
    "resize to the nearest of a size": lambda: model_of(  # which is computed
        graph_of([node("Shape", ["x"], ["s"], start=0, end=2), node("Concat", ["s", "to"], ["all"], axis=0),
                  node("Resize", ["x", "", "", "all"], ["y"])], {"to": i64(9, 4)}, {"x": ("n", 2, 6, 7)})
    ),
    **{
        f"resize to one place, {mode}, {place}": held(
            "Resize", {"none1": NONE, "none2": NONE, "to": i64(1, 3, 1, 5)}, {"x": (1, 3, 8, 8)},
            mode=mode, coordinate_transformation_mode=place,
        )
        for mode in ("nearest", "linear", "cubic")
        for place in ("half_pixel", "pytorch_half_pixel", "align_corners")
    },
    **{
        f"resize without jagged edges, {mode}": held(
            "Resize", {"none": NONE, "by": np.array([1, 1, 0.5, 0.6], np.float32)}, {"x": ("n", 3, 8, 10)},
            mode=mode, antialias=1, exclude_outside=1, cubic_coeff_a=-0.5,
        )
        for mode in ("linear", "cubic")
    },
    "upsample 9": held("Upsample", {"by": np.array([1, 1, 2, 2], np.float32)}, IMAGE, 9, mode="nearest"),
    # borrowed
    "softmax 11": single("Softmax", None, 11, axis=1),
    "softmax 13": single("Softmax", axis=1),
    "hard maximum 11": single("Hardmax", None, 11, axis=1),
    "hard maximum 11 of all": single("Hardmax", {"x": ("n", 3)}, 11, axis=0),
    "hard maximum 13": single("Hardmax", axis=1),
    "gelu": single("Gelu"),
    "gelu by tanh": single("Gelu", approximate="tanh"),
    "mish": single("Mish"),
    "hard swish": single("HardSwish"),
    "average pooling": single("AveragePool", IMAGE, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
    "max pooling": single("MaxPool", IMAGE, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
    "pooling to one": single("GlobalAveragePool", IMAGE),
    "depth to space": single("DepthToSpace", {"x": ("n", 8, 2, 2)}, blocksize=2),
    "einsum": lambda: model_of(
        graph_of([node("Einsum", ["x", "w"], ["y"], equation="nti,io->nto")], weights(w=(6, 2)), X)
    ),
    "leaky": single("LeakyRelu", alpha=0.2),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_an_operator_computes_what_it_should(tmp_path: Path, name: str) -> None:
    check(CASES[name](), tmp_path)


def test_a_size_that_follows_another_is_resized_to_the_nearest_at_any(tmp_path: Path) -> None:
    """As a network brings two images to one size; what is free is free behind the tracing."""
    shapes: Shapes = {"x": ("n", 2, "h", "w"), "like": ("n", 2, "g", "v")}
    nodes = [node("Shape", ["like"], ["s"]), node("Resize", ["x", "", "", "s"], ["y"])]
    path = written(model_of(graph_of(nodes, {}, shapes)), tmp_path)
    loaded = read(path)
    sizes = [((2, 2, 6, 7), (2, 2, 9, 14)), ((3, 2, 6, 10), (3, 2, 7, 5)), ((2, 2, 10, 6), (2, 2, 5, 9))]
    first, *others = ({n: batch(s, 0) for n, s in zip(shapes, both, strict=True)} for both in sizes)
    free = tuple(dict.fromkeys(range(4), Dim.AUTO) for _ in shapes)
    tensors = tuple(torch.from_numpy(x) for x in first.values())
    program = torch.export.export(loaded.model, tensors, dynamic_shapes=free)  # type: ignore[arg-type]
    for inputs in (first, *others):
        right = expected(path, inputs)
        assert_same(outputs_of(loaded.model, inputs), right)  # type: ignore[arg-type]
        assert_same(outputs_of(program.module(check_guards=False), inputs), right)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mode": "cubic", "exclude_outside": 1}, "cubic with exclude_outside=1"),
        ({"mode": "cubic", "antialias": 1, "exclude_outside": 1}, "cubic_coeff_a=-0.75 and antialias"),
        ({"mode": "cubic", "cubic_coeff_a": -0.5}, "cubic_coeff_a=-0.5"),
        ({"mode": "linear", "antialias": 1}, "linear with antialias, half_pixel and exclude_outside=0"),
        ({"mode": "linear", "coordinate_transformation_mode": "asymmetric"}, "linear with asymmetric"),
        ({"coordinate_transformation_mode": "tf_crop_and_resize"}, "nearest with tf_crop_and_resize"),
    ],
)
def test_a_resize_that_torch_does_otherwise_is_refused(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    by = np.array([1, 1, 0.5, 1.5], np.float32)
    path = written(held("Resize", {"none": NONE, "by": by}, IMAGE, **options)(), tmp_path)
    with pytest.raises(Exception, match=words):
        outputs_of(read(path).model, {"x": np.zeros((2, 3, 8, 8), np.float32)})  # type: ignore[arg-type]


# ── shapes that are computed ─────────────────────────────────────────────────────────────────────


def test_a_shape_that_is_computed_leaves_the_batch_free(tmp_path: Path) -> None:
    """As exporters write `x.reshape(x.size(0), -1)`, `torch.arange(x.size(1))` and `x.expand(x.size(0), ...)`."""
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "zero"], ["rows"], axis=0),
        node("Unsqueeze", ["rows", "at"], ["rows1"]),
        node("Gather", ["s", "one"], ["length"], axis=0),
        node("Range", ["zero", "length", "one"], ["places"]),
        node("Cast", ["places"], ["floats"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["floats", "one1"], ["column"]),
        node("Add", ["x", "column"], ["moved"]),
        node("Mul", ["length", "six"], ["wide"]),
        node("Unsqueeze", ["wide", "at"], ["wide1"]),
        node("Concat", ["rows1", "wide1"], ["to"], axis=0),
        node("Reshape", ["moved", "to"], ["flat"]),
        node("ConstantOfShape", ["one1"], ["ones"], value=numpy_helper.from_array(np.array([1], np.int64))),
        node("Equal", ["rows1", "ones"], ["lone"]),
        node("Where", ["lone", "ones", "rows1"], ["again"]),
        node("Concat", ["again", "wide1"], ["to2"], axis=0),
        node("Expand", ["row", "to2"], ["spread"]),
        node("Sub", ["flat", "spread"], ["y"]),
    ]
    values = {
        "zero": np.array(0, np.int64), "one": np.array(1, np.int64), "six": np.array(6, np.int64),
        "at": i64(0), "one1": i64(1), **weights(row=(1, 24)),
    }  # fmt: skip
    check(model_of(graph_of(nodes, values, X)), tmp_path)


def test_padding_that_is_computed_from_shapes(tmp_path: Path) -> None:
    """The chain that the older exporter writes for `F.pad`: constants that are reshaped, reversed and transposed."""
    nodes = [
        node("ConstantOfShape", ["two"], ["zeros"], value=numpy_helper.from_array(np.array([0], np.int64))),
        node("Concat", ["amounts", "zeros"], ["all"], axis=0),
        node("Reshape", ["all", "pairs"], ["matrix"]),
        node("Slice", ["matrix", "minus", "far", "at", "minus"], ["reversed"]),
        node("Transpose", ["reversed"], ["turned"], perm=[1, 0]),
        node("Reshape", ["turned", "row"], ["flat"]),
        node("Cast", ["flat"], ["pads"], to=TensorProto.INT64),
        node("Pad", ["x", "pads"], ["y"]),
    ]  # fmt: skip
    values = {
        "two": i64(2), "amounts": i64(1, 2, 0, 3), "pairs": i64(-1, 2), "minus": i64(-1),
        "far": i64(-(2**62)), "at": i64(0), "row": i64(-1),
    }  # fmt: skip
    check(model_of(graph_of(nodes, values, X), 13), tmp_path)


# ── recurrent layers ─────────────────────────────────────────────────────────────────────────────

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def recurrent(kind: str, direction: str, *, bias: bool = True, state: bool = False, layout: int = 0) -> ModelProto:
    """x [N, 4, 6], turned to [4, N, 6] as the operator wants it, through a layer of five."""
    directions = 2 if direction == "bidirectional" else 1
    gates = GATES[kind]
    values = weights(w=(directions, gates * 5, 6), r=(directions, gates * 5, 5), b=(directions, 2 * gates * 5))
    inputs = ["t", "w", "r", "b" if bias else ""]
    if state:
        values |= weights(1, h=(directions, 1, 5))
        values["shape"] = i64(directions, 1, 5)
        inputs += ["", "hs"]
    nodes = [node("Transpose", ["x"], ["t"], perm=[1, 0, 2])]
    if state:  # one state for however many rows
        nodes += [
            node("Shape", ["x"], ["s"], start=0, end=1),
            node("Concat", ["d", "s", "five"], ["to"], axis=0),
            node("Expand", ["h", "to"], ["hs"]),
        ]
        values |= {"d": i64(directions), "five": i64(5)}
    options = {"direction": direction, "hidden_size": 5}
    if kind == "GRU":
        options["linear_before_reset"] = 1
    outputs = ["y", "last", "cell"] if kind == "LSTM" else ["y", "last"]
    nodes.append(node(kind, inputs, outputs, **options))
    return model_of(graph_of(nodes, {k: v for k, v in values.items() if k != "shape"}, X, outputs), 15)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("kind", GATES)
def test_recurrent_layers(tmp_path: Path, kind: str, direction: str) -> None:
    loaded = check(recurrent(kind, direction), tmp_path)
    assert all(parameter.requires_grad for parameter in loaded.model.parameters())
    assert sum(parameter.numel() for parameter in loaded.model.parameters()) == (
        (2 if direction == "bidirectional" else 1) * GATES[kind] * 5 * (6 + 5 + 2)
    )


@pytest.mark.parametrize("kind", GATES)
def test_a_recurrent_layer_without_bias_and_with_a_state(tmp_path: Path, kind: str) -> None:
    check(recurrent(kind, "forward", bias=False, state=True), tmp_path)


@pytest.mark.parametrize("kind", GATES)
def test_what_two_recurrent_layers_share_stays_one(tmp_path: Path, kind: str) -> None:
    model = recurrent(kind, "bidirectional")
    (layer,) = (n for n in model.graph.node if n.op_type == kind)
    again = copy.deepcopy(layer)
    again.name, again.output[:] = "again", [f"{name}_again" for name in layer.output]
    model.graph.node.append(again)
    model.graph.node.append(node("Add", [layer.output[0], again.output[0]], ["both"]))
    model.graph.output.append(helper.make_tensor_value_info("both", TensorProto.FLOAT, None))
    loaded = check(model, tmp_path)
    count = sum(parameter.numel() for parameter in loaded.model.parameters())
    assert count == 2 * GATES[kind] * 5 * (6 + 5 + 2)


def test_what_two_casts_make_of_one_tensor_stays_one(tmp_path: Path) -> None:
    nodes = [
        node("Cast", ["half"], ["w1"], to=TensorProto.FLOAT),
        node("Cast", ["half"], ["w2"], to=TensorProto.FLOAT),
        node("Transpose", ["w2"], ["w3"], perm=[1, 0]),
        node("MatMul", ["x", "w1"], ["h"]),
        node("MatMul", ["h", "w3"], ["y"]),
    ]
    half = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float16)
    loaded = check(model_of(graph_of(nodes, {"half": half}, {"x": ("n", 6)}), 13), tmp_path)
    assert [tuple(parameter.shape) for parameter in loaded.model.parameters()] in ([(6, 3)], [(3, 6)])


# ── branches ─────────────────────────────────────────────────────────────────────────────────────


def branching() -> ModelProto:
    """Takes one weight or the other, by the sum of the input."""
    empty = [helper.make_tensor_value_info("o", TensorProto.FLOAT, None)]
    branches = [
        helper.make_graph([node("Gemm", ["x", name, "b"], ["o"], name=name)], name, [], empty) for name in ("w", "v")
    ]
    nodes = [
        node("ReduceSum", ["x"], ["s"], keepdims=0),
        node("Greater", ["s", "zero"], ["c"]),
        node("If", ["c"], ["y"], name="choice", then_branch=branches[0], else_branch=branches[1]),
    ]
    values = weights(w=(6, 3), v=(6, 3), b=(3,)) | {"zero": np.float32(0)}
    return model_of(graph_of(nodes, values, {"x": ("n", 6)}), 13)


def test_a_branch_by_values_stays_one(tmp_path: Path) -> None:
    loaded = check(branching(), tmp_path)
    example = {"x": np.ones((2, 6), np.float32)}
    program = traced(loaded.model, example, [True])
    assert torch.ops.higher_order.cond in {n.target for n in program.graph.nodes}
    for sign in (1, -1):  # both ways are taken
        inputs = {"x": sign * np.ones((3, 6), np.float32)}
        right = expected(tmp_path / "model.onnx", inputs)
        assert_same(outputs_of(loaded.model, inputs), right)
        assert_same(outputs_of(program.module(check_guards=False), inputs), right)


def test_a_branch_by_shape_is_taken_at_once(tmp_path: Path) -> None:
    """As the older exporter writes `x.squeeze(1)`."""
    empty = [helper.make_tensor_value_info("o", TensorProto.FLOAT, None)]
    then = helper.make_graph([node("Squeeze", ["x", "at"], ["o"])], "then", [], empty)
    other = helper.make_graph([node("Identity", ["x"], ["o"])], "else", [], empty)
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "at"], ["length"]),
        node("Equal", ["length", "at"], ["c"]),
        node("If", ["c"], ["y"], then_branch=then, else_branch=other),
    ]
    loaded = check(model_of(graph_of(nodes, {"at": i64(1)}, {"x": ("n", 1, 6)}), 13), tmp_path)
    program = traced(loaded.model, {"x": np.ones((2, 1, 6), np.float32)}, [True])
    assert torch.ops.higher_order.cond not in {n.target for n in program.graph.nodes}
