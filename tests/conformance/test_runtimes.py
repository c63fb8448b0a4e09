"""Every runtime loads a file, runs any batch, and refuses in one line what it cannot load."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnx.external_data_helper
import onnx_graphsurgeon as gs
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from graftkit.core.errors import ExportError, MismatchError, RuntimeMissingError
from graftkit.folding import gated
from graftkit.folding.rewrites import REWRITES
from graftkit.runtimes import RUNTIMES

WEIGHT = np.arange(12, dtype=np.float32).reshape(4, 3) - 6


# Runtimes that are wrong where an output is read by another node, too.
OVERWRITES = {"mnn"}

# Runtimes that take any constant behind a norm for its weights.
MISTAKES_NORMS = {"mnn"}

# Runtimes that have no operator of those a gate is made of.
NO_GATE = {"ncnn"}


@cache
def missing(name: str) -> str | None:
    """Why a runtime is not there, None where it is."""
    try:
        RUNTIMES[name].version()
    except RuntimeMissingError as error:
        return str(error)
    return None


@pytest.fixture(params=RUNTIMES)
def name(request: pytest.FixtureRequest) -> str:
    """Every runtime; one that is not set up is skipped, but where all are asked for (`make runtimes`)."""
    if why := missing(request.param):
        assert not os.environ.get("GRAFTKIT_ALL_RUNTIMES"), why
        pytest.skip(why)
    return str(request.param)


def model_of(
    inputs: int = 1,
    *,
    operator: str = "MatMul",
    outputs: tuple[str, ...] = ("y",),
    weights: tuple[float, ...] = (1.0, 1.0),
) -> bytes:
    """X times a constant, for one input or for the weighted sum of several."""
    names = [f"x{index}" for index in range(inputs)]
    products = ["s"] if inputs == 1 else [f"m{index}" for index in range(inputs)]
    nodes = [helper.make_node("Mul", [name, f"f{i}"], [products[i]]) for i, name in enumerate(names)]
    nodes += [helper.make_node("Sum", products, ["s"])] * (inputs > 1)
    nodes += [helper.make_node(operator, ["s", "w"], ["y"])]
    nodes.append(helper.make_node("Relu", ["y"], ["z"]))
    nodes += [helper.make_node("MatMul", ["s", "minus"], ["v"])] * ("v" in outputs)
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ("n", 4)) for name in names],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ("n", 3)) for name in outputs],
        [numpy_helper.from_array(WEIGHT, "w")]
        + [numpy_helper.from_array(-WEIGHT, "minus")] * ("v" in outputs)
        + [numpy_helper.from_array(np.float32(weights[index]), f"f{index}") for index in range(inputs)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_it_computes(name: str, rows: int) -> None:
    assert RUNTIMES[name].name == name
    inputs = np.random.RandomState(rows).randn(rows, 4).astype(np.float32)
    for threads in (None, 1):
        (found,) = RUNTIMES[name].open(model_of(), threads=threads)({"x0": inputs})
        np.testing.assert_allclose(found, inputs @ WEIGHT, rtol=1e-5, atol=1e-5)


def test_it_gives_all_outputs_in_order(name: str) -> None:
    inputs = np.random.RandomState(0).randn(2, 4).astype(np.float32)
    minus, plain = RUNTIMES[name].open(model_of(outputs=("v", "y")))({"x0": inputs})
    np.testing.assert_allclose(plain, inputs @ WEIGHT, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(minus, -plain, rtol=1e-5, atol=1e-5)


def test_an_output_that_a_node_reads_stays_what_it_is(name: str, request: pytest.FixtureRequest) -> None:
    if name in OVERWRITES:
        request.applymarker(pytest.mark.xfail(strict=True, reason=f"{name} computes the next node in place"))
    inputs = np.random.RandomState(0).randn(2, 4).astype(np.float32)
    rectified, plain = RUNTIMES[name].open(model_of(outputs=("z", "y")))({"x0": inputs})
    np.testing.assert_allclose(rectified, np.maximum(inputs @ WEIGHT, 0), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(plain, inputs @ WEIGHT, rtol=1e-5, atol=1e-5)


def gate() -> tuple[bytes, np.ndarray, np.ndarray]:
    """A file with a gate, rows on both sides of its threshold in turn, and what each has to become."""
    names, shapes = ("x0", "y"), (("n", 4), ("n", 3))
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in zip(names, shapes, strict=True)]
    base = [helper.make_node("MatMul", ["x0", "w"], ["y"], name="call")]
    more = [
        helper.make_node("MatMul", ["x0", "w"], ["s"], name="call"),
        helper.make_node("Tanh", ["s"], ["t"], name="dendrite"),
        helper.make_node("Sub", ["s", "t"], ["y"], name="join"),
    ]
    opset = [helper.make_opsetid("", 20)]
    whole = [
        helper.make_model(
            helper.make_graph(nodes, "made", ends[:1], ends[1:], [numpy_helper.from_array(WEIGHT / 6, "w")]),
            opset_imports=opset,
            ir_version=10,
        )
        for nodes in (base, more)
    ]
    rows = np.random.RandomState(0).randn(8, 4).astype(np.float32) * np.tile([[0.1], [9]], (4, 1)).astype(np.float32)
    said = rows @ (WEIGHT / 6)
    right = np.where(np.arange(8)[:, None] % 2, said, said - np.tanh(said))
    return bytes(gated(*whole, 0.7).SerializeToString()), rows, right


def test_it_computes_each_row_of_a_gate(name: str) -> None:
    """Rows that are sure and rows that are not, alone and side by side."""
    content, rows, right = gate()
    if name in NO_GATE:
        with pytest.raises(ExportError) as caught:
            RUNTIMES[name].open(content)
        assert "\n" not in str(caught.value)
        return
    run = RUNTIMES[name].open(content, threads=1)
    for count in (1, 2, 8):
        found = [run({"x0": rows[start : start + count]})[0] for start in range(0, 8, count)]
        np.testing.assert_allclose(np.concatenate(found), right, atol=1e-4 * np.abs(right).max())


def scaled_norm(factor: np.ndarray, axes: tuple[int, ...] = (-1,)) -> onnx.ModelProto:
    """An input [n, 3, 6, 4] over the root of its mean square along these axes, times constants."""
    nodes = [
        helper.make_node("Mul", ["x0", "x0"], ["p"]),
        helper.make_node("ReduceMean", ["p", "axes"], ["m"]),
        helper.make_node("Add", ["m", "epsilon"], ["a"]),
        helper.make_node("Sqrt", ["a"], ["s"]),
        helper.make_node("Div", ["x0", "s"], ["q"]),
        helper.make_node("Mul", ["q", "factor"], ["y"]),
    ]
    constants = {"axes": np.array(axes), "epsilon": np.float32(1e-6), "factor": factor.astype(np.float32)}
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ("n", 3, 6, 4)) for name in ("x0", "y")]
    kept = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "norm", ends[:1], ends[1:], kept)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


NORMS = {
    "a factor a place": (np.arange(1, 5), (-1,)),
    "one factor": (np.array(0.25), (-1,)),
    "a factor a row": (np.arange(1, 7).reshape(6, 1), (-1,)),
    "a factor everywhere": (np.arange(1, 25).reshape(6, 4), (-1,)),
    "a factor along another axis": (np.arange(1, 5), (1,)),
    "a factor a channel": (np.arange(1, 4).reshape(3, 1, 1), (1,)),
    "axes apart": (np.array(1), (1, 3)),
}


def normed(model: onnx.ModelProto, name: str, case: str) -> None:
    """Run the norm, and compare."""
    factor, axes = NORMS[case]
    inputs = np.random.RandomState(0).randn(2, 3, 6, 4).astype(np.float32)
    (found,) = RUNTIMES[name].open(model.SerializeToString(), threads=1)({"x0": inputs})
    right = inputs / np.sqrt(np.mean(inputs**2, axis=axes, keepdims=True) + 1e-6) * factor
    np.testing.assert_allclose(found, right, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", NORMS)
def test_it_takes_no_norm_for_another(name: str, case: str) -> None:
    graph = gs.import_onnx(scaled_norm(*NORMS[case]))
    assert REWRITES["norms"](graph) == (not case.endswith(("a place", "a channel")))
    model = gs.export_onnx(graph)
    model.ir_version = 10
    normed(model, name, case)


@pytest.mark.parametrize("case", ["a factor everywhere", "axes apart"])  # with others, MNN reads beyond their ends
def test_the_norms_that_are_written_anew_need_it(name: str, case: str, request: pytest.FixtureRequest) -> None:
    if name in MISTAKES_NORMS:
        request.applymarker(pytest.mark.xfail(strict=True, reason=f"{name} takes it for another norm"))
    normed(scaled_norm(*NORMS[case]), name, case)


def resized() -> tuple[onnx.ModelProto, np.ndarray, np.ndarray]:
    """Images of any number, made twice as high and wide as the exporter writes it; rows, and what becomes of them."""
    nodes = [
        helper.make_node("Mul", ["x0", "two"], ["d"]),
        helper.make_node("Shape", ["d"], ["kept"], start=0, end=2),
        helper.make_node("Concat", ["kept", "plane"], ["sizes"], axis=0),
        helper.make_node("Resize", ["d", "", "", "sizes"], ["y"], mode="linear"),
    ]
    shapes = {"x0": ("n", 2, 3, 4), "y": ("n", 2, 6, 8)}
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    constants = {"two": np.float32(2), "plane": np.array([6, 8])}
    kept = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "resized", ends[:1], ends[1:], kept)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    rows = np.random.RandomState(0).randn(3, 2, 3, 4).astype(np.float32)
    right = torch.nn.functional.interpolate(2 * torch.from_numpy(rows), size=(6, 8), mode="bilinear").numpy()
    return onnx.shape_inference.infer_shapes(model, strict_mode=True), rows, right


def test_it_resizes_any_number_of_rows(name: str) -> None:
    model, rows, right = resized()
    graph = gs.import_onnx(model)
    assert REWRITES["resizes"](graph) == 1
    model = gs.export_onnx(graph.cleanup())
    model.ir_version = 10
    run = RUNTIMES[name].open(model.SerializeToString(), threads=1)
    for count in (1, 3):
        np.testing.assert_allclose(run({"x0": rows[:count]})[0], right[:count], rtol=1e-5, atol=1e-5)


def test_other_sizes_may_be_free_too(name: str) -> None:
    """A runtime that has to know them, as ncnn, opens the file for each it is asked for."""
    nodes = [helper.make_node("Tanh", ["x0"], ["t"]), helper.make_node("MatMul", ["t", "w"], ["y"])]
    shapes = {"x0": ("n", "length", 4), "y": ("n", "length", 3)}
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    graph = helper.make_graph(nodes, "free", ends[:1], ends[1:], [numpy_helper.from_array(WEIGHT, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    session = RUNTIMES[name].open(model.SerializeToString(), threads=1)
    for shape in ((2, 5, 4), (1, 3, 4), (3, 5, 4)):
        rows = np.random.RandomState(0).randn(*shape).astype(np.float32)
        np.testing.assert_allclose(session({"x0": rows})[0], np.tanh(rows) @ WEIGHT, rtol=1e-4, atol=1e-4)
    assert len(session.seconds({"x0": rows}, 2)) == 2
    session.close()


def test_tract_plans_anew_what_fails_for_a_free_size_when_it_is_run() -> None:
    if why := missing("tract"):
        assert not os.environ.get("GRAFTKIT_ALL_RUNTIMES"), why
        pytest.skip(why)
    model, rows, right = resized()
    session = RUNTIMES["tract"].open(model.SerializeToString())
    for count in (1, 3):
        np.testing.assert_allclose(session({"x0": rows[:count]})[0], right[:count], rtol=1e-5, atol=1e-5)
    assert len(session.seconds({"x0": rows}, 2)) == 2
    with pytest.raises(MismatchError, match="the file takes"):
        session({"x0": rows[:, :1]})
    session.close()


def test_it_times_runs_and_is_closed_twice(name: str) -> None:
    session = RUNTIMES[name].open(model_of(), threads=1)
    inputs = {"x0": np.zeros((1, 4), np.float32)}
    found = session.seconds(inputs, 3)
    assert len(found) == 3 and all(0 <= value < 60 for value in found)  # a browser's clock has a grain
    with pytest.raises(MismatchError, match="no input 'x0'"):
        session.seconds({}, 1)
    session.close()
    session.close()


def test_it_takes_no_other_type(name: str) -> None:
    with pytest.raises(MismatchError, match=r"fails on x0 \[2, 4\]: ") as caught:
        RUNTIMES[name].open(model_of())({"x0": np.zeros((2, 4), np.float64)})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"not onnx", model_of()[:-40], model_of(operator="NoSuchOperator")])
def test_it_refuses_what_it_cannot_run(name: str, content: bytes) -> None:
    with pytest.raises(ExportError) as caught:
        RUNTIMES[name].open(content)
    assert "\n" not in str(caught.value)


def test_an_unknown_runtime_is_refused() -> None:
    with pytest.raises(RuntimeMissingError, match=r"unknown runtime 'onnxruntim'; there are onnxruntime"):
        RUNTIMES.find("onnxruntim")


def test_inputs_go_by_name(name: str) -> None:
    first, second = (np.random.RandomState(seed).randn(2, 4).astype(np.float32) for seed in (0, 1))
    run = RUNTIMES[name].open(model_of(2, weights=(1.0, 3.0)))
    np.testing.assert_allclose(run({"x1": second, "x0": first})[0], (first + 3 * second) @ WEIGHT, rtol=1e-5, atol=1e-5)
    with pytest.raises(MismatchError, match=r"the file takes x0, x1, and was given no input 'x1'"):
        run({"x0": first})
    with pytest.raises(MismatchError, match="was given an input 'x2' that it does not have"):
        run({"x0": first, "x1": second, "x2": first})


def test_it_says_what_it_fails_on(name: str) -> None:
    with pytest.raises(MismatchError, match=r"fails on x0 \[2, 5\]: ") as caught:
        RUNTIMES[name].open(model_of())({"x0": np.zeros((2, 5), np.float32)})
    assert "\n" not in str(caught.value)


def test_it_reads_a_file_with_its_weights_beside_it(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(onnx.load_model_from_string(model_of()), path, save_as_external_data=True, location="w", size_threshold=0)
    inputs = np.random.RandomState(0).randn(2, 4).astype(np.float32)
    np.testing.assert_allclose(RUNTIMES[name].open(path)({"x0": inputs})[0], inputs @ WEIGHT, rtol=1e-5, atol=1e-5)
    (tmp_path / "w").unlink()
    with pytest.raises(ExportError) as caught:
        RUNTIMES[name].open(path)
    assert "\n" not in str(caught.value)


def test_it_reads_no_weights_outside_of_the_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(1000))
    (tmp_path / "model").mkdir()
    model = onnx.load_model_from_string(model_of())
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == "w")
    onnx.external_data_helper.set_external_data(tensor, "../secret", offset=0, length=48)
    tensor.ClearField("raw_data")
    (tmp_path / "model" / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ExportError):
        RUNTIMES[name].open(tmp_path / "model" / "model.onnx")
