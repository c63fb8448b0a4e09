"""Computes, before a graph is exported, the weights that depend on parameters alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from graftkit.tracing.sites import weights_of


def compute_weights(graph: fx.GraphModule) -> int:
    """Replace each computed weight of a Linear or Conv call by its value, in place; returns how many there were.

    Weight norm, spectral norm, orthogonal and standardised weights cost nothing in the file then, and what they are
    computed with need have no ONNX form.
    """
    values: dict[fx.Node, Any] = {}
    count = 0
    for call, weight in weights_of(graph.graph):
        if weight.op == "get_attr" or not _depends_on_parameters_alone(weight):
            continue
        with torch.no_grad():
            value = _value(graph, weight, values)
        name = f"graftkit_weight_{count}"
        graph.register_buffer(name, value.detach().clone())
        with graph.graph.inserting_before(call):
            constant = graph.graph.get_attr(name)
        constant.meta = {**weight.meta}
        call.replace_input_with(weight, constant)
        count += 1
    if count:
        graph.graph.eliminate_dead_code()
        graph.recompile()
    return count


def _depends_on_parameters_alone(node: fx.Node) -> bool:
    seen: set[fx.Node] = set()
    waiting = [node]
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        if current.op == "placeholder" or _draws(current):
            return False
        waiting += current.all_input_nodes
    return True


def _draws(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and torch.Tag.nondeterministic_seeded in node.target.tags


def _value(graph: fx.GraphModule, node: fx.Node, values: dict[fx.Node, Any]) -> Any:
    """The node's value, with that of everything it is computed from, in the graph's order."""
    wanted, waiting = set(), [node]
    while waiting:
        current = waiting.pop()
        if current not in wanted and current not in values:
            wanted.add(current)
            waiting += current.all_input_nodes
    for current in graph.graph.nodes:
        if current in wanted:
            values[current] = _run(graph, current, values)
    return values[node]


def _run(graph: fx.GraphModule, node: fx.Node, values: dict[fx.Node, Any]) -> Any:
    if node.op == "get_attr":
        owner, _, leaf = str(node.target).rpartition(".")
        found = getattr(graph.get_submodule(owner), leaf)
        return found.detach().clone() if isinstance(found, Tensor) and _is_written(node) else found
    args = fx.node.map_arg(node.args, lambda n: values[n])
    keywords = fx.node.map_arg(node.kwargs, lambda n: values[n])
    return node.target(*args, **keywords)  # type: ignore[operator]


def _is_written(node: fx.Node) -> bool:
    """Whether a call may write into the tensor: then the module's own is not the one to give it."""
    return any(
        str(user.target).split(".")[-2:-1] and str(user.target).split(".")[1].endswith("_") for user in node.users
    )
