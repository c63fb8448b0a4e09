"""Inserts one call of a site's dendrites into an fx graph, and removes it."""

from __future__ import annotations

from torch import fx

from graftkit.core.errors import PlanError, did_you_mean
from graftkit.model import ACTIVATION_MARK, DENDRITES_MARK, SITE_MARK, slot
from graftkit.plan import Graft
from graftkit.switching import DENDRITES


def insert_call(graph: fx.GraphModule, graft: Graft) -> None:
    """Insert `dendrites.SITE(input, neuron[, mask])` behind the site, in place; the caller recompiles the graph.

    Raises PlanError when the graph does not have the site, or no input called like the mask.
    """
    call = _marked(graph, SITE_MARK, graft.site)
    neuron = call if graft.join == "call" else _marked(graph, ACTIVATION_MARK, graft.site)
    arguments: tuple[fx.Node, ...] = (read_by_site(call), neuron)
    if graft.mask is not None:
        arguments = (*arguments, placeholder(graph, graft.mask))
    with graph.graph.inserting_after(neuron):
        joined = graph.graph.call_module(f"{DENDRITES}.{slot(graft.site)}", arguments)
    neuron.replace_all_uses_with(joined)
    joined.args = arguments  # the line before made it read itself
    joined.meta[DENDRITES_MARK] = graft.site
    joined.meta["val"] = neuron.meta.get("val")
    stack = dict(call.meta.get("nn_module_stack") or {})
    path = f"{graft.site}.dendrites"
    joined.meta["nn_module_stack"] = {**stack, path: (path, "graftkit.model.SiteDendrites")}


def remove_call(graph: fx.GraphModule, site: str) -> None:
    """Take the call out again, in place; the caller recompiles the graph."""
    joined = _marked(graph, DENDRITES_MARK, site)
    neuron = joined.args[1]
    assert isinstance(neuron, fx.Node)
    joined.replace_all_uses_with(neuron)
    graph.graph.erase_node(joined)


def read_by_site(call: fx.Node) -> fx.Node:
    """What a Linear or Conv call reads."""
    # addmm(bias, input, weight) reads its input second
    source = call.args[1] if "addmm" in str(call.target) else call.args[0]
    assert isinstance(source, fx.Node)
    return source


def _marked(graph: fx.GraphModule, mark: str, site: str) -> fx.Node:
    found: list[fx.Node] = [node for node in graph.graph.nodes if node.meta.get(mark) == site]
    if found:
        return found[0]
    raise PlanError(f"the graph has no site {site!r}")


def placeholder(graph: fx.GraphModule, name: str) -> fx.Node:
    """The graph's input called `name`; raises PlanError."""
    inputs: dict[str, fx.Node] = {str(node.target): node for node in graph.graph.nodes if node.op == "placeholder"}
    if name not in inputs:
        raise PlanError(f"the model has no input {name!r} to use as a mask.{did_you_mean(name, inputs)}")
    return inputs[name]
