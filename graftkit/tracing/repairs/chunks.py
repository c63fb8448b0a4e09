"""Writes chunks of a size that stays free out as slices: the ONNX exporter's own form breaks its optimizer."""

from __future__ import annotations

import operator

import torch
from torch import fx

from graftkit.tracing.free import fixed_size
from graftkit.tracing.repairs.building import Builder

aten = torch.ops.aten


def plain_chunks(graph: fx.GraphModule) -> str | None:
    """Applies to `chunk` along a dimension that stays free, if there are as many as were asked for, and to `split`."""
    for node in [n for n in graph.graph.nodes if n.target in (aten.chunk.default, aten.split.Tensor)]:
        given, told, *rest = node.args
        dim, count = int(rest[0]) if rest else int(node.kwargs.get("dim", 0)), len(node.meta["val"])
        free = fixed_size(given.meta["val"].shape[dim]) is None
        chunks = node.target is aten.chunk.default and free and told == count
        if chunks or (node.target is aten.split.Tensor and isinstance(told, fx.Node)):
            with graph.graph.inserting_before(node):
                _slice(graph.graph, node, given, count, dim, size=None if chunks else told)
    return None


def _slice(graph: fx.Graph, node: fx.Node, given: fx.Node, count: int, dim: int, size: fx.Node | None) -> None:
    """All are of one size, by default the whole's share rounded up; the last may be of less."""
    build = Builder(graph, node)
    whole = build(aten.sym_size.int, given, dim)
    size = size or build(operator.floordiv, build(operator.add, whole, count - 1), count)
    for user in list(node.users):
        index = int(user.args[1]) % count  # type: ignore[arg-type]
        start = build(operator.mul, size, index)
        length = build(operator.sub, whole, start) if index == count - 1 else size
        user.replace_all_uses_with(build(aten.narrow.default, given, dim, start, length))
        graph.erase_node(user)
    graph.erase_node(node)
