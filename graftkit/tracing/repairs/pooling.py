"""Writes pooling to a single value out as a mean or a maximum: the ONNX exporter asks for a fixed size otherwise."""

from __future__ import annotations

import torch
from torch import fx

from graftkit.tracing.repairs.building import Builder

aten = torch.ops.aten
_MEANS = frozenset(
    {aten.adaptive_avg_pool1d.default, aten.adaptive_avg_pool2d.default, aten.adaptive_avg_pool3d.default}
)
_LARGEST = frozenset(
    {aten.adaptive_max_pool1d.default, aten.adaptive_max_pool2d.default, aten.adaptive_max_pool3d.default}
)


def plain_pooling(graph: fx.GraphModule) -> str | None:
    """Applies to adaptive pooling to size 1 in every dimension, of a maximum whose place nobody asks for."""
    for node in [n for n in graph.graph.nodes if n.target in _MEANS | _LARGEST]:
        source, sizes = node.args[0], node.args[1]
        sizes = sizes if isinstance(sizes, list | tuple) else [sizes]
        if any(size != 1 for size in sizes):
            continue
        dims = list(range(-len(sizes), 0))
        with graph.graph.inserting_before(node):
            build = Builder(graph.graph, node)
            if node.target in _MEANS:
                node.replace_all_uses_with(build(aten.mean.dim, source, dims, True))
            elif all(user.args[1] == 0 for user in node.users):
                largest = build(aten.amax.default, source, dims, True)
                for user in list(node.users):
                    user.replace_all_uses_with(largest)
                    graph.graph.erase_node(user)
        if not node.users:
            graph.graph.erase_node(node)
    return None
