"""Keeps zeros around what a maximum is taken of: onnxruntime would move them into the pool, which pads with none."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from graftkit.folding.rewrites.tensors import nodes_of
from graftkit.folding.surgeon import peek

_POOLS = frozenset({"MaxPool"})


def keep_zero_padding(graph: gs.Graph) -> int:
    """MaxPool(Pad(x, 0)) becomes MaxPool(Pad(x, 1e-38)), which nobody fuses and which is as good as zero.

    onnxruntime 1.31 and onnx-simplifier make MaxPool(x, pads) of it, where padding counts as minus infinity: another
    result wherever a window at the border holds nothing but negative numbers (microsoft/onnxruntime pull request 18136,
    onnxsim/onnxsim issue 290).
    """
    kept = 0
    for node in nodes_of(graph, "Pad"):
        if _pads_zeros(node) and any(reader.op in _POOLS for tensor in node.outputs for reader in tensor.outputs):
            tiny = np.finfo(np.float32).tiny
            value = gs.Constant(f"{node.outputs[0].name}_padding", np.array(tiny, np.float32))
            node.inputs = [*node.inputs[:2], value, *node.inputs[3:]]
            kept += 1
    return kept


def _pads_zeros(node: gs.Node) -> bool:
    """Whether it surrounds single-precision numbers with zeros."""
    if node.attrs.get("mode", "constant") not in ("constant", b"constant") or node.outputs[0].dtype != np.float32:
        return False
    value = node.inputs[2] if len(node.inputs) > 2 else gs.Variable.empty()
    if isinstance(value, gs.Constant):
        return not np.any(peek(value))
    return bool(value.is_empty())
