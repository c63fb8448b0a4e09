"""Writes chunks of a size that stays free out as slices: the ONNX exporter's own form breaks its optimizer."""

from __future__ import annotations

import operator

import torch
from torch import Tensor, fx

from graftkit.tracing.free import fixed_size
from graftkit.tracing.repairs.building import Builder

aten = torch.ops.aten


def plain_chunks(graph: fx.GraphModule) -> str | None:
    """Applies to `chunk` along a dimension that stays free, where all chunks are of one size."""
    for node in [n for n in graph.graph.nodes if n.target is aten.chunk.default]:
        given, count, *rest = node.args
        dim = int(rest[0]) if rest else int(node.kwargs.get("dim", 0))
        pieces: list[Tensor] = node.meta["val"]
        sizes = [piece.shape[dim] for piece in pieces]
        if fixed_size(given.meta["val"].shape[dim]) is None and len(pieces) == count and _alike(sizes):
            with graph.graph.inserting_before(node):
                _slice(graph.graph, node, given, count, dim)
    return None


def _alike(sizes: list[int]) -> bool:
    """Whether the sizes are the same formula; two that only may be equal are not."""
    return len({str(size) for size in sizes}) == 1


def _slice(graph: fx.Graph, node: fx.Node, given: fx.Node, count: int, dim: int) -> None:
    build = Builder(graph, node)
    size = build(operator.floordiv, build(aten.sym_size.int, given, dim), count)
    for user in list(node.users):
        start = build(operator.mul, size, user.args[1])
        user.replace_all_uses_with(build(aten.narrow.default, given, dim, start, size))
        graph.erase_node(user)
    graph.erase_node(node)
