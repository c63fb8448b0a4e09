"""Writes pooling to a single value out as a mean or a maximum: the ONNX exporter asks for a fixed size otherwise."""

from __future__ import annotations

import operator

import torch
from torch import fx

from graftkit.tracing.repairs.building import Builder

aten = torch.ops.aten
_MEANS = frozenset(getattr(aten, f"adaptive_avg_pool{dims}d").default for dims in (1, 2, 3))
_LARGEST = frozenset(getattr(aten, f"adaptive_max_pool{dims}d").default for dims in (1, 2, 3))


def plain_pooling(graph: fx.GraphModule) -> str | None:
    """Applies to adaptive pooling to size 1 in every dimension, of a maximum whose place nobody asks for."""
    for node in [n for n in graph.graph.nodes if n.target in _MEANS | _LARGEST]:
        sizes = node.args[1] if isinstance(node.args[1], list | tuple) else [node.args[1]]
        if all(size == 1 for size in sizes):
            with graph.graph.inserting_before(node):
                pool = _mean if node.target in _MEANS else _largest
                pool(graph.graph, node, len(sizes))
    return None


def _mean(graph: fx.Graph, node: fx.Node, dims: int) -> None:
    mean = Builder(graph, node)(aten.mean.dim, node.args[0], list(range(-dims, 0)), True)
    node.replace_all_uses_with(mean)
    graph.erase_node(node)


def _largest(graph: fx.Graph, node: fx.Node, dims: int) -> None:
    """The first of the largest values, as the pool has it: so its gradient is the pool's, too."""
    values = [user for user in node.users if user.args[1] == 0]
    if any(user.users for user in node.users if user not in values):
        return
    build = Builder(graph, node)
    flat = build(aten.flatten.using_ints, node.args[0], -dims, -1)
    largest = build(operator.getitem, build(aten.max.dim, flat, -1), 0)
    for _ in range(dims):
        largest = build(aten.unsqueeze.default, largest, -1)
    for user in list(node.users):
        user.replace_all_uses_with(largest)
        graph.erase_node(user)
    graph.erase_node(node)
