"""Rectifies once where a gate is made of what is rectified behind it, too."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from graftkit.folding.rewrites.tensors import held, nodes_of
from graftkit.folding.surgeon import peek

_TO_ONE = ("Tanh", "Erf", "Softsign")  # from -1 to 1: with 1 added, never negative


def share_gate(graph: gs.Graph) -> int:
    """relu(x * g) becomes relu(x) * g where g is never negative and relu(x) is there already.

    Dendrites of the kinds `context`, `own` and `around` make gates of relu(x). Runtimes then compute the rectifier
    within the convolution.
    """
    outputs, shared = held(graph), 0
    rectifiers = nodes_of(graph, "Relu")
    for relu in rectifiers:
        product = relu.inputs[0].inputs[0] if relu.inputs[0].inputs else None
        alone = len(relu.inputs[0].outputs) == 1 and relu.inputs[0].name not in outputs
        if product is None or product.op != "Mul" or not alone:
            continue
        for place, gate in enumerate(product.inputs):
            rectified = _rectified(product.inputs[1 - place], rectifiers, but=relu)
            if rectified is not None and _never_negative(gate):
                product.inputs[1 - place] = rectified
                product.outputs[0] = relu.outputs[0]
                relu.inputs.clear()
                relu.outputs.clear()
                shared += 1
                break
    return shared


def _rectified(tensor: gs.Tensor, rectifiers: Sequence[gs.Node], *, but: gs.Node) -> gs.Tensor | None:
    """What a rectifier of this very graph, and of none inside it, makes of a tensor."""
    own = (reader for reader in tensor.outputs if any(reader is relu for relu in rectifiers))
    return next((reader.outputs[0] for reader in own if reader is not but and reader.outputs), None)


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
