"""Writes pairwise distances out as a norm of differences: the ONNX exporter has no form for `cdist`."""

from __future__ import annotations

import torch
from torch import fx

from graftkit.tracing.repairs.building import Builder

aten = torch.ops.aten
_DISTANCES = frozenset({aten.cdist.default, aten._cdist_forward.default, aten._euclidean_dist.default})


def plain_distances(graph: fx.GraphModule) -> str | None:
    """Applies to `torch.cdist(a, b, p)`: the p-norm of a[..., i, :] - b[..., j, :] for every i and j."""
    for node in [n for n in graph.graph.nodes if n.target in _DISTANCES]:
        one, other, *power = node.args
        with graph.graph.inserting_before(node):
            build = Builder(graph.graph, node)
            apart = build(
                aten.sub.Tensor, build(aten.unsqueeze.default, one, -2), build(aten.unsqueeze.default, other, -3)
            )
            result = build(aten.linalg_vector_norm.default, apart, power[0] if power else 2.0, [-1])
        node.replace_all_uses_with(result)
        graph.graph.erase_node(node)
    return None
