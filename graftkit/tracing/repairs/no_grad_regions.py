"""Brings the calls inside `with torch.no_grad():` and the like into the graph itself, where they can be seen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import fx

from graftkit.tracing.free import tensor_placeholders
from graftkit.tracing.full_precision import begin, end

aten = torch.ops.aten
_REGION = torch.ops.higher_order.wrap_with_set_grad_enabled
_PRECISION = torch.ops.higher_order.wrap_with_autocast


def inline_regions(graph: fx.GraphModule) -> str | None:
    """Applies to regions that torch.export keeps as a graph of their own.

    What goes into a region without gradients is detached, and so is what it gives: no error flows, nothing is recorded,
    and what it writes into, it still writes into. A tensor that was only written to comes out as it went in. A region
    without autocast has marks where it begins and ends, between which there is none.
    """
    while regions := [n for n in graph.graph.nodes if n.target is _REGION or _is_full(n)]:
        for node in regions:
            _inline(graph, node)
    return None


def _is_full(node: fx.Node) -> bool:
    """Whether it is a region of `torch.autocast(..., enabled=False)`."""
    return node.target is _PRECISION and node.args[2] is False


def _inline(graph: fx.GraphModule, node: fx.Node) -> None:
    enabled, inner_node, *arguments = node.args if node.target is _REGION else (True, *node.args[4:])
    assert isinstance(inner_node, fx.Node)
    inner = graph.get_submodule(str(inner_node.target))
    assert isinstance(inner, fx.GraphModule)
    outer: dict[fx.Node, fx.Node] = {}
    values: dict[fx.Node, fx.Node] = {}
    waiting = iter(arguments)
    with graph.graph.inserting_before(node), _marked(graph, on=_is_full(node)):
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


@contextmanager
def _marked(graph: fx.GraphModule, *, on: bool) -> Iterator[None]:
    """What is put into the graph while inside stands between marks."""
    data = tensor_placeholders(graph)
    if not (on and data):
        yield
        return
    region = graph.graph.call_function(begin, (data[0],))
    yield
    for mark in (region, graph.graph.call_function(end, (region,))):
        mark.meta["val"] = None  # neither gives a tensor


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
