"""Writes `x @ weight.T` as the Linear call that it is, so that it can be a site."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

from graftkit.tracing.repairs.building import Builder

aten = torch.ops.aten
_TURNS = frozenset({aten.t.default, aten.numpy_T.default, aten.transpose.int, aten.permute.default})


def plain_products(graph: fx.GraphModule) -> str | None:
    """Applies to a product with the transpose of a parameter of two dimensions, such as Falcon's layers make."""
    for node in [n for n in graph.graph.nodes if n.target is aten.matmul.default]:
        rows, turned = node.args
        weight = _turned_parameter(graph, turned)
        if weight is None or rows.meta["val"].ndim < 2:
            continue
        with graph.graph.inserting_before(node):
            made = Builder(graph.graph, node)(aten.linear.default, rows, weight)
        node.replace_all_uses_with(made)
        graph.graph.erase_node(node)
        if not turned.users:
            graph.graph.erase_node(turned)
    return None


def _turned_parameter(graph: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """The parameter of two dimensions whose transpose a node is."""
    held: Any = node.args[0] if node.target in _TURNS else None
    if not isinstance(held, fx.Node) or held.op != "get_attr" or node.meta["val"].ndim != 2:
        return None
    if node.target is aten.permute.default and list(node.args[1]) not in ([1, 0], [-1, 0], [1, -2], [-1, -2]):  # type: ignore[arg-type]
        return None
    if node.target is aten.transpose.int and len({dim % 2 for dim in node.args[1:]}) < 2:  # type: ignore[operator]
        return None
    owner, _, leaf = str(held.target).rpartition(".")
    value: Tensor = getattr(graph.get_submodule(owner), leaf)
    return held if isinstance(value, nn.Parameter) else None
