"""Every ONNX rewrite: where it applies the node goes and the numbers stay; where it must not, nothing changes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from graftkit import folding
from graftkit.folding.rewrites import REWRITES

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
    dims = [value.dim_value for value in before.graph.input[0].type.tensor_type.shape.dim][1:]
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

APPLIES: dict[str, tuple[str, onnx.ModelProto, str]] = {
    "norm behind a conv": ("batch_norm", model_of([conv, norm("h", "y")], CONV | norm_of(4)), "BatchNormalization"),
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
}  # fmt: skip


def test_every_rewrite_has_a_place_where_it_applies() -> None:
    assert {name for name, _, _ in APPLIES.values()} | {"zero_state"} == set(REWRITES)


@pytest.mark.parametrize("case", APPLIES)
def test_it_applies(case: str) -> None:
    name, before, gone = APPLIES[case]
    assert gone in operators(before)
    after, changed = rewritten(before, name)
    assert changed == 1 and gone not in operators(after)
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
    "an identity between two outputs": (
        "idle",
        model_of([conv, node("Identity", ["h"], "y")], CONV, outputs=("h", "y")),
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
        match draw(st.sampled_from(("Conv", "Conv", "Norm", "Add", "Mul", "Relu", "Identity", "Zero"))):
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
    return model_of(nodes, constants, shape=("n", 3, 4, 4))


@settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(networks())
def test_folding_keeps_the_numbers_of_any_network(before: onnx.ModelProto) -> None:
    after = folding.fold(before, (), ())
    inputs = numbers(2, 3, 4, 4, seed=3)
    (expected,), (found,) = outputs_of(before, inputs), outputs_of(after, inputs)
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(found / scale, expected / scale, atol=2e-5)
    assert "Identity" not in operators(after) or len(after.graph.node) == 1
