"""Keeps what was read of a buffer before it is written: an assignment leaves the old tensor whole, a copy does not."""

from __future__ import annotations

import torch
from torch import fx

from graftkit.tracing.repairs.building import Builder

aten = torch.ops.aten


def read_before_written(graph: fx.GraphModule) -> str | None:
    """Applies to a buffer that is computed with and then, once and whole, written by `copy_`.

    Autograd needs in the backward pass what was computed with, so that is a copy of the buffer made at first.
    """
    for node in [n for n in graph.graph.nodes if n.op == "get_attr"]:
        readers = _readers(node)
        if readers:
            with graph.graph.inserting_before(readers[0]):
                kept = Builder(graph.graph, readers[0])(aten.clone.default, node)
            for reader in readers:
                reader.replace_input_with(node, kept)
    return None


def _readers(node: fx.Node) -> list[fx.Node]:
    """Who computes with the tensor before it is written; none where that is not plain to see."""
    users = list(node.users)
    writes = [user for user in users if user.target is aten.copy_.default and user.args[0] is node]
    others = [user for user in users if user not in writes and user.target is not aten.clone.default]
    if len(writes) != 1 or any(_shares(user) for user in others):
        return []
    order = {user: place for place, user in enumerate(node.graph.nodes)}
    return sorted((user for user in others if order[user] < order[writes[0]]), key=order.__getitem__)


def _shares(user: fx.Node) -> bool:
    """Whether a call may write into its arguments or give a view of one, or is no plain call."""
    if not isinstance(user.target, torch._ops.OpOverload):
        return True
    return any(argument.alias_info is not None for argument in user.target._schema.arguments)
