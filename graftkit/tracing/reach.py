"""Tells which nodes of a graph an error at its output reaches, through views that are written to as well."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor, fx

aten = torch.ops.aten
# What an error does not pass: detached values, and steps, whose slope is zero.
_STOPS = frozenset(
    getattr(aten, name).default
    for name in (
        "detach",
        "detach_",
        "round",
        "round_",
        "sign",
        "sign_",
        "floor",
        "floor_",
        "ceil",
        "trunc",
        "heaviside",
    )
)


def reached(graph: fx.GraphModule, output: fx.Node, *, through_detach: bool = False) -> set[fx.Node]:
    """The nodes on which the output depends; without those behind a `detach`, unless asked for."""
    written_by = writers(graph, through_detach=through_detach)
    found: set[fx.Node] = set()
    waiting = [output]
    while waiting:
        node = waiting.pop()
        if node in found:
            continue
        found.add(node)
        waiting += written_by.get(node, [])
        if through_detach or not _stops(node):
            waiting += node.all_input_nodes
    return found


def _stops(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return node.target in _STOPS or (
        isinstance(value, Tensor) and not value.is_floating_point() and not value.is_complex()
    )


def writers(graph: fx.GraphModule, *, through_detach: bool) -> dict[fx.Node, list[fx.Node]]:
    """For each node, the calls that write into its tensor, or into a tensor that shares its memory."""
    roots: dict[fx.Node, fx.Node] = {}
    found: dict[fx.Node, list[fx.Node]] = defaultdict(list)
    for node in graph.graph.nodes:
        roots[node] = node
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
            continue
        for argument, value in zip(node.target._schema.arguments, node.args, strict=False):
            if not isinstance(value, fx.Node) or argument.alias_info is None:
                continue
            if argument.alias_info.is_write:
                found[roots[value]].append(node)
            elif isinstance(node.meta.get("val"), Tensor) and (through_detach or node.target not in _STOPS):
                roots[node] = roots[value]
    return {node: found[root] for node, root in roots.items() if root in found}
