"""Good ONNX files: a plain network, one with a branch, one with a function of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def onnx_files(folder: Path) -> None:
    for number, make in enumerate((_plain, _branching, _with_function)):
        model = make()
        onnx.checker.check_model(model)
        onnx.save(model, str(folder / f"{number}.onnx"))


def _plain() -> onnx.ModelProto:
    """[N, 1, 6, 6] to [N, 3], by Conv, BatchNormalization, Gemm."""
    rng = np.random.default_rng(0)
    weights = {
        "conv.weight": rng.random((3, 1, 3, 3), dtype=np.float32),
        "conv.bias": rng.random(3, dtype=np.float32),
        **{f"norm.{name}": rng.random(3, dtype=np.float32) for name in ("weight", "bias", "mean", "var")},
        "head.weight": rng.random((3, 48), dtype=np.float32),
        "head.bias": rng.random(3, dtype=np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "conv.weight", "conv.bias"], ["c"], name="conv", kernel_shape=[3, 3]),
        helper.make_node("BatchNormalization", ["c", *(f"norm.{n}" for n in ("weight", "bias", "mean", "var"))], ["n"]),
        helper.make_node("Relu", ["n"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("Gemm", ["f", "head.weight", "head.bias"], ["y"], name="head", transB=1),
    ]
    return _model(nodes, weights, ("N", 1, 6, 6), ("N", 3))


def _branching() -> onnx.ModelProto:
    """[N, 4] to [N, 4], by MatMul, Reshape to a computed shape, Expand, and an If over the sum."""
    rng = np.random.default_rng(1)
    weights = {
        "weight": rng.random((4, 4), dtype=np.float32),
        "zero": np.array(0, dtype=np.float32),
        "shape": np.array([0, 4], dtype=np.int64),
        "one": np.array([1], dtype=np.int64),
    }
    arms = [
        helper.make_graph([helper.make_node(operator, ["r"], [name])], name, [], [_port(name, ("N", 4))])
        for operator, name in (("Tanh", "a"), ("Sigmoid", "b"))
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["m"], name="first"),
        helper.make_node("Reshape", ["m", "shape"], ["r0"]),
        helper.make_node("ConstantOfShape", ["one"], ["ones"], value=numpy_helper.from_array(np.ones(1, np.float32))),
        helper.make_node("Add", ["r0", "ones"], ["r"]),
        helper.make_node("ReduceSum", ["r"], ["s"], keepdims=0),
        helper.make_node("Greater", ["s", "zero"], ["up"]),
        helper.make_node("If", ["up"], ["i"], then_branch=arms[0], else_branch=arms[1]),
        helper.make_node("MatMul", ["i", "weight"], ["y"], name="last"),
    ]
    return _model(nodes, weights, ("N", 4), ("N", 4))


def _with_function() -> onnx.ModelProto:
    """[N, 4] to [N, 4], through a function of the file's own, with metadata."""
    weights = {"weight": np.eye(4, dtype=np.float32)}
    body = [helper.make_node("MatMul", ["a", "b"], ["m"]), helper.make_node("Relu", ["m"], ["c"])]
    function = helper.make_function("own", "layer", ["a", "b"], ["c"], body, [helper.make_opsetid("", 18)])
    nodes = [
        helper.make_node("layer", ["x", "weight"], ["h"], domain="own"),
        helper.make_node("MatMul", ["h", "weight"], ["y"], name="last"),
    ]
    model = _model(nodes, weights, ("N", 4), ("N", 4))
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("own", 1))
    helper.set_model_props(model, {"author": "somebody"})
    return model


def _port(name: str, shape: tuple[object, ...]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _model(
    nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], takes: tuple[object, ...], gives: tuple[object, ...]
) -> onnx.ModelProto:
    held = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "net", [_port("x", takes)], [_port("y", gives)], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
