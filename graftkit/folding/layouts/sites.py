"""A grafted site in a folded graph: the nodes that are marked as its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass

import onnx

from graftkit.folding.names import DENDRITE_KEY, SITE_KEY, metadata
from graftkit.folding.ports import graphs_of
from graftkit.folding.written import is_apart


@dataclass(frozen=True, eq=False)
class SiteNodes:
    """What computes a site that has dendrites.

    Attributes:
        site: its key.
        own: the site's own call.
        dendrites: the nodes of its dendrites, in the order of the graph.
    """

    site: str
    own: onnx.NodeProto
    dendrites: tuple[onnx.NodeProto, ...]


def grafted_sites(graph: onnx.GraphProto) -> Iterator[SiteNodes]:
    """The sites whose own call and dendrites are nodes of the graph, in its order."""
    found: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        site = metadata(node).get(SITE_KEY)
        if site is not None:
            found.setdefault(site, []).append(node)
    for site, nodes in found.items():
        own = [node for node in nodes if DENDRITE_KEY not in metadata(node)]
        dendrites = tuple(node for node in nodes if DENDRITE_KEY in metadata(node))
        if len(own) == 1 and dendrites:
            yield SiteNodes(site, own[0], dendrites)


def constants(graph: onnx.GraphProto) -> Mapping[str, onnx.TensorProto]:
    """The initializers whose numbers are in the graph itself, and no input's, by name."""
    inputs = {value.name for value in graph.input}
    return {tensor.name: tensor for tensor in graph.initializer if not is_apart(tensor) and tensor.name not in inputs}


def attributes(node: onnx.NodeProto) -> dict[str, object]:
    """A node's attributes by name."""
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}


def place(graph: onnx.GraphProto, node: onnx.NodeProto) -> int:
    """Where in the graph this very node is."""
    return next(index for index, other in enumerate(graph.node) if other is node)


def drop_unread(graph: onnx.GraphProto, names: Set[str]) -> None:
    """Drop, in place, those of these initializers that no node reads, in the graphs within it either."""
    inner = list(graphs_of(graph))
    read = {name for each in inner for node in each.node for name in node.input}
    read |= {value.name for each in inner for value in each.output}
    for tensor in [tensor for tensor in graph.initializer if tensor.name in names - read]:
        graph.initializer.remove(tensor)
