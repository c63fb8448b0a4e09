"""Writes `number - tensor` of whole numbers out: the ONNX exporter finds no form for a number that comes first."""

from __future__ import annotations

import torch
from torch import fx

from graftkit.tracing.repairs.building import Builder

aten = torch.ops.aten


def plain_subtraction(graph: fx.GraphModule) -> str | None:
    """Applies to `number - tensor`, a tensor of whole numbers and another type of result: 1.0 - ids (xlnet)."""
    for node in [n for n in graph.graph.nodes if n.target is aten.rsub.Scalar]:
        tensor, number, *factor = node.args
        kind = node.meta["val"].dtype
        if tensor.meta["val"].dtype == kind:
            continue
        with graph.graph.inserting_before(node):
            build = Builder(graph.graph, node)
            negative = build(aten.mul.Scalar, build(aten.to.dtype, tensor, kind), -(factor[0] if factor else 1))
            result = build(aten.add.Scalar, negative, number)
        node.replace_all_uses_with(result)
        graph.graph.erase_node(node)
    return None
