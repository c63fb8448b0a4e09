"""Brings an ONNX graph into the one form that is built from: small named steps, each of which changes one thing."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from onnx import ModelProto

from graftkit.sources.onnx_normalise.constants import constants_from_nodes, drop_names
from graftkit.sources.onnx_normalise.folding import fold_views
from graftkit.sources.onnx_normalise.functions import inlined
from graftkit.sources.onnx_normalise.graph import Graph, graph_of
from graftkit.sources.onnx_normalise.linear import join_bias
from graftkit.sources.onnx_normalise.order import in_order, without_unused
from graftkit.sources.onnx_tensors import Tensors

# In the order in which they run.
STEPS: Mapping[str, Callable[[Graph], None]] = {
    "constant nodes become tensors": constants_from_nodes,
    "nodes stand in the order in which they run": in_order,
    "what only renames a value goes": drop_names,
    "a tensor seen another way becomes that tensor": fold_views,
    "a bias joins the product before it": join_bias,
    "what reaches no output goes": without_unused,
}


def normalise(model: ModelProto, tensors: Tensors, opset: int) -> Graph:
    """The graph of a checked file after every step, functions being in the place of their calls already."""
    graph = graph_of(model.graph, tensors, opset)
    apply_steps(graph)
    return graph


def apply_steps(graph: Graph) -> None:
    """All steps, on a graph or on a branch within one."""
    for step in STEPS.values():
        step(graph)


__all__ = ["STEPS", "Graph", "apply_steps", "graph_of", "inlined", "normalise"]
