"""Folds strengths into the weights before a rectifier, where algebra allows it."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from graftkit.folding.rewrites.silent import is_output


def fold_strength(graph: gs.Graph) -> int:
    """S * relu(W x + b) becomes relu(s W x + s b) where no s is negative, for Conv and Gemm.

    Only the rectifier lets a factor through; behind tanh, sigmoid and gelu a strength stays one Mul.
    """
    folded = 0
    for mul in [node for node in graph.nodes if node.op == "Mul"]:
        constants = [t for t in mul.inputs if isinstance(t, gs.Constant)]
        if len(constants) != 1:
            continue
        strength = constants[0].values
        (activity,) = [t for t in mul.inputs if t is not constants[0]]
        call = _rectified_call(graph, activity)
        if call is None or np.any(strength < 0) or not _one_a_channel(strength, call):
            continue
        _scale(call, strength.reshape(-1))
        relu = activity.inputs[0]
        relu.outputs[0] = mul.outputs[0]
        mul.inputs.clear()
        mul.outputs.clear()
        folded += 1
    return folded


def _rectified_call(graph: gs.Graph, activity: gs.Tensor) -> gs.Node | None:
    """The Conv or Gemm whose rectified output this is, if nothing else reads either and its weights are constant."""
    if not activity.inputs or len(activity.outputs) != 1 or activity.inputs[0].op != "Relu":
        return None
    drive = activity.inputs[0].inputs[0]
    if not drive.inputs or len(drive.outputs) != 1 or drive.inputs[0].op not in ("Conv", "Gemm"):
        return None
    if is_output(graph, activity) or is_output(graph, drive):
        return None
    call = drive.inputs[0]
    own = all(isinstance(t, gs.Constant) and len(t.outputs) == 1 for t in call.inputs[1:])
    return call if own and call.attrs.get("alpha", 1.0) == 1.0 and call.attrs.get("beta", 1.0) == 1.0 else None


def _one_a_channel(strength: np.ndarray, call: gs.Node) -> bool:
    channels = call.inputs[1].values.shape[_axis(call)]
    rank = call.inputs[1].values.ndim if call.op == "Conv" else 2
    expected = (channels,) + (1,) * (rank - 2)
    return strength.shape == expected


def _axis(call: gs.Node) -> int:
    return 0 if call.op == "Conv" or call.attrs.get("transB", 0) else 1


def _scale(call: gs.Node, factor: np.ndarray) -> None:
    weight = call.inputs[1]
    shape = [1] * weight.values.ndim
    shape[_axis(call)] = -1
    weight.values = (weight.values * factor.reshape(shape)).astype(weight.values.dtype)
    if len(call.inputs) > 2:
        bias = call.inputs[2]
        bias.values = (bias.values * factor).astype(bias.values.dtype)
