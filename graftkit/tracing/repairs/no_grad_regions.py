"""Brings the calls inside `with torch.no_grad():` and the like into the graph itself, where they can be seen."""

from __future__ import annotations

import torch
from torch import fx

_REGION = torch.ops.higher_order.wrap_with_set_grad_enabled


def inline_regions(graph: fx.GraphModule) -> str | None:
    """Applies to regions that torch.export keeps as a graph of their own; what one without gradients gives is detached.

    No error flows through a detached tensor, so training does what it did in the region.
    """
    while regions := [node for node in graph.graph.nodes if node.target is _REGION]:
        for node in regions:
            _inline(graph, node)
    return None


def _inline(graph: fx.GraphModule, node: fx.Node) -> None:
    enabled, inner_node, *arguments = node.args
    assert isinstance(inner_node, fx.Node)
    inner = graph.get_submodule(str(inner_node.target))
    assert isinstance(inner, fx.GraphModule)
    values: dict[fx.Node, fx.Node] = {}
    waiting = iter(arguments)
    with graph.graph.inserting_before(node):
        for inside in inner.graph.nodes:
            if inside.op == "placeholder":
                values[inside] = next(waiting)  # type: ignore[assignment]
            elif inside.op != "output":
                values[inside] = graph.graph.node_copy(inside, lambda n: values[n])
                values[inside].meta = dict(inside.meta)
                if inside.op == "get_attr":
                    setattr(graph, str(inside.target), getattr(inner, str(inside.target)))
        (given,) = next(n for n in inner.graph.nodes if n.op == "output").args
        results = [_result(graph, values[n], detach=not enabled) for n in given]
    for getitem in list(node.users):
        getitem.replace_all_uses_with(results[getitem.args[1]])  # type: ignore[index]
        graph.graph.erase_node(getitem)
    graph.graph.erase_node(node)
    if not inner_node.users:
        graph.graph.erase_node(inner_node)


def _result(graph: fx.GraphModule, value: fx.Node, *, detach: bool) -> fx.Node:
    if not detach or not isinstance(value.meta.get("val"), torch.Tensor):
        return value
    detached = graph.graph.call_function(torch.ops.aten.detach.default, (value,))
    detached.meta = dict(value.meta)
    return detached
