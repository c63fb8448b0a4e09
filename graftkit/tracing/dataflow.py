"""A networkx view of a graph's data flow: what follows a call, and which call feeds which."""

from __future__ import annotations

from collections.abc import Mapping

import networkx as nx
import torch
from torch import Tensor, fx

from graftkit.core.records import EdgeRecord

aten = torch.ops.aten

BATCH_NORMS = frozenset({aten.batch_norm.default, aten.native_batch_norm.default})
ACTIVATIONS: Mapping[object, str] = {
    getattr(getattr(aten, name), overload): name.rstrip("_")
    for name, overload in (
        ("relu", "default"), ("relu_", "default"), ("gelu", "default"), ("tanh", "default"),
        ("tanh_", "default"), ("sigmoid", "default"), ("sigmoid_", "default"), ("silu", "default"),
        ("silu_", "default"), ("elu", "default"), ("elu_", "default"), ("selu", "default"),
        ("leaky_relu", "default"), ("leaky_relu_", "default"), ("hardtanh", "default"),
        ("hardtanh_", "default"), ("hardswish", "default"), ("hardswish_", "default"),
        ("hardsigmoid", "default"), ("mish", "default"), ("softplus", "default"), ("prelu", "default"),
        ("log_softmax", "int"), ("softmax", "int"),
    )
}  # fmt: skip


def data_flow(graph: fx.Graph) -> nx.DiGraph:
    """The graph's nodes that carry tensors, with an edge from each to what reads it.

    Sizes are left out: a shape taken from the input would make it a neighbour of everything.
    """
    flow = nx.DiGraph()
    for node in graph.nodes:
        if node.op == "output" or _carries_tensor(node):
            flow.add_node(node)
            flow.add_edges_from((source, node) for source in node.all_input_nodes if source in flow)
    return flow


def followers(call: fx.Node) -> tuple[fx.Node, ...]:
    """The batch norm and the activation behind a call, as far as nothing else reads in between."""
    chain: list[fx.Node] = []
    node = call
    while len(node.users) == 1:
        (node,) = node.users
        is_norm = node.target in BATCH_NORMS and not chain
        if not is_norm and node.target not in ACTIVATIONS:
            break
        chain.append(node)
        if not is_norm:
            break
    return tuple(chain)


def describe(node: fx.Node) -> str:
    """The name of a batch norm or an activation."""
    return "batch_norm" if node.target in BATCH_NORMS else ACTIVATIONS[node.target]


def site_edges(flow: nx.DiGraph, names: Mapping[fx.Node, str]) -> tuple[EdgeRecord, ...]:
    """Which site feeds which with no other site in between; "" is the network's input or output."""
    starts = {node: "" for node in flow if node.op == "placeholder"} | dict(names)
    edges = {(name, target) for start, name in starts.items() for target in _next_sites(flow, start, names)}
    order = {name: index for index, name in enumerate(names.values())}
    ordered = sorted(edges, key=lambda edge: (order.get(edge[0], -1), order.get(edge[1], len(order))))
    return tuple(EdgeRecord(source, target) for source, target in ordered)


def _next_sites(flow: nx.DiGraph, start: fx.Node, names: Mapping[fx.Node, str]) -> set[str]:
    found: set[str] = set()
    seen: set[fx.Node] = set()
    waiting = list(flow.successors(start))
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        if node in names:
            found.add(names[node])
        elif node.op == "output":
            found.add("")
        else:
            waiting.extend(flow.successors(node))
    return found


def _carries_tensor(node: fx.Node) -> bool:
    if node.op == "get_attr":
        return False
    value = node.meta.get("val")
    return isinstance(value, Tensor) or (
        isinstance(value, tuple | list) and any(isinstance(item, Tensor) for item in value)
    )
