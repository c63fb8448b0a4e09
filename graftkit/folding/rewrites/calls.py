"""Calls whose weights are constants of their own: what the rewrites that scale them share."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import onnx_graphsurgeon as gs

from graftkit.folding.surgeon import changed


def own_weights(call: gs.Node) -> bool:
    """Whether it is W x + b, with constants that nobody else reads."""
    if call.op not in ("Conv", "Gemm", "MatMul") or call.attrs.get("alpha", 1.0) != 1.0:
        return False
    own = all(isinstance(t, gs.Constant) and len(t.outputs) == 1 for t in call.inputs[1:])
    return own and call.attrs.get("beta", 1.0) == 1.0 and (call.op == "Conv" or len(call.inputs[1].shape) == 2)


def one_a_channel(factor: Sequence[int], call: gs.Node) -> bool:
    """Whether a constant of these sizes has one number for each channel that the call gives."""
    weight = call.inputs[1].shape
    inner = len(weight) - 2 if call.op == "Conv" else 0
    return tuple(factor) == (weight[axis_of(call)],) + (1,) * inner


def scale(call: gs.Node, factor: np.ndarray) -> None:
    """Multiply weight and bias, in place, by one number a channel."""
    shape = [1] * len(call.inputs[1].shape)
    shape[axis_of(call)] = -1
    for constant, factors in zip(call.inputs[1:], (factor.reshape(shape), factor), strict=False):
        constant.values = changed(constant, partial(np.multiply, factors))


def axis_of(call: gs.Node) -> int:
    """Along which axis of a call's weight its channels lie."""
    return 0 if call.op == "Conv" or call.attrs.get("transB", 0) else 1
