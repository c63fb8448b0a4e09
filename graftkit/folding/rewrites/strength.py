"""Folds strengths into the weights before a rectifier, where algebra allows it."""

from __future__ import annotations

from collections.abc import Set

import numpy as np
import onnx_graphsurgeon as gs

from graftkit.folding.rewrites.calls import one_a_channel, own_weights, scale
from graftkit.folding.rewrites.tensors import held, nodes_of
from graftkit.folding.surgeon import peek


def fold_strength(graph: gs.Graph) -> int:
    """S * relu(W x + b) becomes relu(s W x + s b) where no s is negative, for Conv and Gemm.

    Only the rectifier lets a factor through; behind tanh, sigmoid and gelu a strength stays one Mul.
    """
    outputs = held(graph)
    folded = 0
    for mul in nodes_of(graph, "Mul"):
        constants = [t for t in mul.inputs if isinstance(t, gs.Constant)]
        if len(constants) != 1:
            continue
        (activity,) = [t for t in mul.inputs if t is not constants[0]]
        call = _rectified_call(outputs, activity)
        if call is None or not one_a_channel(constants[0].shape, call):
            continue
        strength = peek(constants[0])
        if np.any(strength < 0):
            continue
        scale(call, strength.reshape(-1))
        relu = activity.inputs[0]
        relu.outputs[0] = mul.outputs[0]
        mul.inputs.clear()
        mul.outputs.clear()
        folded += 1
    return folded


def _rectified_call(outputs: Set[str], activity: gs.Tensor) -> gs.Node | None:
    """The Conv or Gemm whose rectified output this is, if nothing else reads either and its weights are constant."""
    if not activity.inputs or len(activity.outputs) != 1 or activity.inputs[0].op != "Relu":
        return None
    drive = activity.inputs[0].inputs[0]
    if not drive.inputs or len(drive.outputs) != 1 or drive.inputs[0].op not in ("Conv", "Gemm"):
        return None
    if activity.name in outputs or drive.name in outputs:
        return None
    call = drive.inputs[0]
    return call if own_weights(call) else None
