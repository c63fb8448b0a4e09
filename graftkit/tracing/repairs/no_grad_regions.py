"""Brings the calls inside `with torch.no_grad():` and the like into the graph itself, where they can be seen."""

from __future__ import annotations

import torch
from torch import fx

aten = torch.ops.aten
_REGION = torch.ops.higher_order.wrap_with_set_grad_enabled
_WEIGHTED = ("aten.linear", "aten.conv", "aten.addmm")
_PRECISION = torch.ops.higher_order.wrap_with_autocast


def inline_regions(graph: fx.GraphModule) -> str | None:
    """Applies to regions that torch.export keeps as a graph of their own.

    What goes into a region without gradients is detached, and so is what it gives: no error flows, nothing is recorded,
    and what it writes into, it still writes into. A tensor that was only written to comes out as it went in. A region
    without autocast that has calls with weights is what it would be outside.
    """
    while regions := [n for n in graph.graph.nodes if n.target is _REGION or _hides_calls(graph, n)]:
        for node in regions:
            _inline(graph, node)
    return None


def _hides_calls(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Whether it is a region of `torch.autocast(..., enabled=False)` with a Linear or Conv call in it."""
    if node.target is not _PRECISION or node.args[2] is not False:
        return False
    inner = graph.get_submodule(str(node.args[4].target))  # type: ignore[union-attr]
    return any(str(n.target).startswith(_WEIGHTED) for n in inner.graph.nodes)  # type: ignore[union-attr]


def _inline(graph: fx.GraphModule, node: fx.Node) -> None:
    enabled, inner_node, *arguments = node.args if node.target is _REGION else (True, *node.args[4:])
    assert isinstance(inner_node, fx.Node)
    inner = graph.get_submodule(str(inner_node.target))
    assert isinstance(inner, fx.GraphModule)
    outer: dict[fx.Node, fx.Node] = {}
    values: dict[fx.Node, fx.Node] = {}
    waiting = iter(arguments)
    with graph.graph.inserting_before(node):
        for inside in inner.graph.nodes:
            if inside.op == "placeholder":
                outer[inside] = next(waiting)  # type: ignore[assignment]
                values[inside] = outer[inside] if enabled else _detached(graph, outer[inside])
            elif inside.op != "output":
                values[inside] = _copied(graph, inner, inside, values)
        (given,) = next(n for n in inner.graph.nodes if n.op == "output").args
        results = [_result(graph, n, values, outer, detach=not enabled) for n in given]
    for getitem in list(node.users):
        getitem.replace_all_uses_with(results[getitem.args[1]])  # type: ignore[index]
        graph.graph.erase_node(getitem)
    graph.graph.erase_node(node)
    if not inner_node.users:
        graph.graph.erase_node(inner_node)


def _copied(graph: fx.GraphModule, inner: fx.GraphModule, inside: fx.Node, values: dict[fx.Node, fx.Node]) -> fx.Node:
    made = graph.graph.node_copy(inside, lambda n: values[n])
    made.meta = dict(inside.meta)
    if inside.op == "get_attr":
        setattr(graph, str(inside.target), getattr(inner, str(inside.target)))
    return made


def _result(
    graph: fx.GraphModule,
    inside: fx.Node,
    values: dict[fx.Node, fx.Node],
    outer: dict[fx.Node, fx.Node],
    *,
    detach: bool,
) -> fx.Node:
    """What a region gives, as the graph around it sees it."""
    written = inside
    while _writes_first(written):
        written = written.args[0]  # type: ignore[assignment]
    if written in outer:
        return outer[written]
    return _detached(graph, values[inside]) if detach else values[inside]


def _writes_first(node: fx.Node) -> bool:
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return False
    first = next(iter(node.target._schema.arguments), None)
    return first is not None and first.alias_info is not None and first.alias_info.is_write


def _detached(graph: fx.GraphModule, value: fx.Node) -> fx.Node:
    if not isinstance(value, fx.Node) or not isinstance(value.meta.get("val"), torch.Tensor):
        return value
    detached = graph.graph.call_function(aten.detach.default, (value,))
    detached.meta = dict(value.meta)
    return detached
