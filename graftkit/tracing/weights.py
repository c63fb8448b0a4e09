"""Computes, before a graph is exported, the weights that depend on parameters alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from graftkit.tracing.reach import reached
from graftkit.tracing.sites import weights_of


def compute_weights(graph: fx.GraphModule) -> int:
    """Replace each computed weight of a Linear or Conv call by its value, in place; returns how many there were.

    Weight norm, spectral norm, orthogonal and standardised weights cost nothing in the file then, and what they are
    computed with need have no ONNX form.
    """
    count = 0
    for call, weight in weights_of(graph.graph):
        behind = reached(graph, weight, through_detach=True)
        if weight.op == "get_attr" or any(node.op == "placeholder" or _draws(node) for node in behind):
            continue
        with torch.no_grad():
            value = _value(graph, weight, behind, call)
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


def _draws(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and torch.Tag.nondeterministic_seeded in node.target.tags


def _value(graph: fx.GraphModule, node: fx.Node, behind: set[fx.Node], before: fx.Node) -> Any:
    """The node's value as the call finds it: everything behind it is run, in the graph's order."""
    values: dict[fx.Node, Any] = {}
    for current in graph.graph.nodes:
        if current is before:
            break
        if current in behind:
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
