"""An ONNX graph that can be changed: its nodes, what goes in and out, and its tensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from onnx import AttributeProto, GraphProto, NodeProto

from graftkit.sources.onnx_tensors import Tensors


@dataclass(eq=False)
class Graph:
    """Steps change it in place.

    Attributes:
        nodes: each a copy of the file's own.
        inputs, outputs: names of values, in the file's order; tensors that the file lists as inputs are none.
        tensors: what values are constant.
        opset: which version of the operators the nodes use.
    """

    nodes: list[NodeProto]
    inputs: list[str]
    outputs: list[str]
    tensors: Tensors
    opset: int

    def uses(self) -> Counter[str]:
        """How often each value is read, by nodes, by graphs within them, and as an output."""
        counted = Counter(self.outputs)
        for node in self.nodes:
            counted.update(read_by(node))
        return counted

    def rename(self, names: Mapping[str, str]) -> None:
        """Let everything that reads a value read another; what the graph gives keeps its name."""
        for node in self.nodes if names else ():
            _rename_in(node, names)


def graph_of(proto: GraphProto, tensors: Tensors, opset: int) -> Graph:
    """A graph or branch of a file; its initializers go into the tensors."""
    for tensor in proto.initializer:
        tensors.add(tensor.name, tensor)
    nodes = []
    for node in proto.node:
        copy = NodeProto()
        copy.CopyFrom(node)
        nodes.append(copy)
    inputs = [value.name for value in proto.input if value.name not in tensors]
    return Graph(nodes, inputs, [value.name for value in proto.output], tensors, opset)


def read_by(node: NodeProto) -> Iterator[str]:
    """Every value that a node reads, those that its branches read from around them included."""
    yield from filter(None, node.input)
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            for inner in attribute.g.node:
                yield from read_by(inner)
            yield from (value.name for value in attribute.g.output)


def attribute_of(node: NodeProto, name: str) -> AttributeProto | None:
    """A node's attribute, None where it is not given."""
    return next((attribute for attribute in node.attribute if attribute.name == name), None)


def _rename_in(node: NodeProto, names: Mapping[str, str]) -> None:
    node.input[:] = [names.get(name, name) for name in node.input]
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            for inner in attribute.g.node:
                _rename_in(inner, names)
            for value in attribute.g.output:
                value.name = names.get(value.name, value.name)
