"""Folds a factor a channel into the Conv, Gemm or MatMul whose output it multiplies."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from graftkit.folding.rewrites.calls import one_a_channel, own_weights, scale
from graftkit.folding.rewrites.tensors import held, nodes_of
from graftkit.folding.surgeon import peek


def fold_scale(graph: gs.Graph) -> int:
    """S * (W x + b) becomes (s W) x + s b, for one s a channel.

    So the strength of a dendrite that serves some neurons goes into the convolution that spreads it over all.
    """
    outputs = held(graph)
    folded = 0
    for mul in nodes_of(graph, "Mul"):
        constants = [t for t in mul.inputs if isinstance(t, gs.Constant)]
        if len(constants) != 1:
            continue
        (product,) = [t for t in mul.inputs if t is not constants[0]]
        call = product.inputs[0] if product.inputs and len(product.outputs) == 1 else None
        if call is None or product.name in outputs or not own_weights(call):
            continue
        if not one_a_channel(constants[0].shape, call) or call.inputs[1].dtype not in (np.float32, np.float64):
            continue  # half precision would lose small weights
        scale(call, peek(constants[0]).reshape(-1))
        call.outputs[0] = mul.outputs[0]
        mul.inputs.clear()
        mul.outputs.clear()
        folded += 1
    return folded
