"""Rectifies once where a gate is made of what is rectified behind it, too."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from graftkit.folding.rewrites.tensors import held, nodes_of
from graftkit.folding.surgeon import peek

_TO_ONE = ("Tanh", "Erf", "Softsign")  # from -1 to 1: with 1 added, never negative


def share_gate(graph: gs.Graph) -> int:
    """relu(x * g) becomes relu(x) * g where g is never negative and relu(x) is there already.

    A `context` dendrite makes its gate of the mean of relu(x). Runtimes then compute the rectifier within the
    convolution.
    """
    outputs, shared = held(graph), 0
    for relu in nodes_of(graph, "Relu"):
        product = relu.inputs[0].inputs[0] if relu.inputs[0].inputs else None
        alone = len(relu.inputs[0].outputs) == 1 and relu.inputs[0].name not in outputs
        if product is None or product.op != "Mul" or not alone:
            continue
        for place, gate in enumerate(product.inputs):
            rectified = _rectified(product.inputs[1 - place], but=relu)
            if rectified is not None and _never_negative(gate):
                product.inputs[1 - place] = rectified
                product.outputs[0] = relu.outputs[0]
                relu.inputs.clear()
                relu.outputs.clear()
                shared += 1
                break
    return shared


def _rectified(tensor: gs.Tensor, *, but: gs.Node) -> gs.Tensor | None:
    found = (reader.outputs[0] for reader in tensor.outputs if reader.op == "Relu" and reader is not but)
    return next(found, None)


def _never_negative(tensor: gs.Tensor) -> bool:
    made = tensor.inputs[0] if tensor.inputs else None
    if made is None:
        return False
    if made.op == "Sigmoid":
        return True
    if made.op != "Add":
        return False
    ones = [t for t in made.inputs if isinstance(t, gs.Constant) and np.all(peek(t) >= 1)]
    bounded = [t for t in made.inputs if t.inputs and t.inputs[0].op in _TO_ONE]
    return len(ones) == 1 and len(bounded) == 1
