"""Writes GELU as its formula, in the one form that onnxruntime puts together again and MNN does not."""

from __future__ import annotations

from math import sqrt

import numpy as np
import onnx_graphsurgeon as gs

from graftkit.folding.rewrites.tensors import fresh, nodes_of


def spell_gelu(graph: gs.Graph) -> int:
    """Gelu(x) becomes x / 2 * (erf(x / sqrt(2)) + 1) (Hendrycks and Gimpel 2016).

    MNN 3.6 takes the operator, and `x * (erf(...) + 1) / 2`, for the approximation by tanh, which is another function.
    onnxruntime's fusion knows both orders and leaves others apart.
    """
    spelled = 0
    for node in nodes_of(graph, "Gelu"):
        given, dtype = node.inputs[0], node.inputs[0].dtype
        if dtype is None or isinstance(dtype, int) or node.attrs.get("approximate", "none") not in ("none", b"none"):
            continue
        _spell(graph, node, given, np.dtype(dtype))
        spelled += 1
    return spelled


def _spell(graph: gs.Graph, node: gs.Node, x: gs.Tensor, dtype: np.dtype) -> None:
    result = node.outputs[0]

    def number(what: str, value: float) -> gs.Constant:
        return gs.Constant(fresh(graph, f"{result.name}_{what}"), np.array(value, dtype))

    def made(operator: str, what: str, *inputs: gs.Tensor) -> gs.Tensor:
        output = gs.Variable(fresh(graph, f"{result.name}_{what}"), dtype=x.dtype, shape=x.shape)
        graph.nodes.append(gs.Node(operator, node.name, inputs=list(inputs), outputs=[output]))
        return output

    inner = made("Erf", "erf", made("Div", "scaled", x, number("root", sqrt(2))))
    half = made("Mul", "half", x, number("point_five", 0.5))
    node.op, node.attrs = "Mul", {}
    node.inputs = [half, made("Add", "share", inner, number("one", 1.0))]
