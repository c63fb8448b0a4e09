"""A grafted site as a model by itself, to be measured."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import networkx as nx
import numpy as np
import onnx
from onnx import helper

from graftkit.folding.layouts.sites import SiteNodes, attributes


@dataclass(frozen=True, eq=False)
class Alone:
    """A site of a model, cut out.

    Attributes:
        site: its key.
        nodes: its own call and its dendrites, in the order of the graph.
        reads, gives: the values that go in and those that others read, by name.
    """

    site: str
    nodes: Sequence[onnx.NodeProto]
    reads: tuple[str, ...]
    gives: tuple[str, ...]

    def model(self, whole: onnx.ModelProto, values: Mapping[str, np.ndarray]) -> onnx.ModelProto:
        """The site as a model of its own, marks included, for values of these types and sizes."""
        used = {name for node in self.nodes for name in node.input}
        graph = helper.make_graph(
            self.nodes,
            "site",
            [_info(name, values[name]) for name in self.reads],
            [_info(name, values[name]) for name in self.gives],
            [tensor for tensor in whole.graph.initializer if tensor.name in used],
        )
        model: onnx.ModelProto = helper.make_model(graph, opset_imports=whole.opset_import, ir_version=whole.ir_version)
        return model


def alone(model: onnx.ModelProto, site: SiteNodes) -> Alone:
    """Cut a site out of a model, with whatever lies between its nodes: a bias that is a sum of its own."""
    nodes = _between(model.graph, (site.own, *site.dendrites))
    made = {name for node in nodes for name in node.output if name}
    constants = {tensor.name for tensor in model.graph.initializer}
    read = dict.fromkeys(name for node in nodes for name in node.input if name and name not in made | constants)
    outside = {name for node in model.graph.node if _key(node) not in made for name in node.input}
    outside |= {value.name for value in model.graph.output}
    gives = tuple(name for node in nodes for name in node.output if name in outside)
    return Alone(site.site, nodes, tuple(read), gives)


def _between(graph: onnx.GraphProto, own: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """These nodes, and all on a way from one of them to another, in the order of the graph."""
    makers = {name: _key(node) for node in graph.node for name in node.output if name}
    flow = nx.DiGraph()
    flow.add_nodes_from(makers.values())
    flow.add_edges_from((makers[name], _key(node)) for node in graph.node for name in node.input if name in makers)
    given = [_key(node) for node in own]
    after = {name for each in given for name in nx.descendants(flow, each)}
    before = {name for each in given for name in nx.ancestors(flow, each)}
    return [node for node in graph.node if _key(node) in given or _key(node) in after & before]


def _key(node: onnx.NodeProto) -> str:
    """What no other node has: the name of a value that it gives."""
    return str(next(name for name in node.output if name))


def showing(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """A copy of the model that gives these values alone."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return copy


def likeness(model: onnx.ModelProto) -> Hashable:
    """What two sites alone have in common if they cost the same: operators, their settings, all sizes."""
    sizes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    sizes |= {
        value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim) for value in model.graph.input
    }
    return tuple(
        (node.op_type, repr(sorted(attributes(node).items(), key=str)), tuple(sizes.get(name) for name in node.input))
        for node in model.graph.node
    )


def _info(name: str, value: np.ndarray) -> onnx.ValueInfoProto:
    info: onnx.ValueInfoProto = helper.make_tensor_value_info(
        name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
    )
    return info
