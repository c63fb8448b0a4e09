"""Turns nodes that make constants into tensors, and takes out nodes that only rename a value."""

from __future__ import annotations

import numpy as np
from onnx import AttributeProto, NodeProto, TensorProto, numpy_helper

from graftkit.core.errors import SourceError
from graftkit.sources.onnx_normalise.graph import Graph
from graftkit.sources.pickle_safety import one_line


def constants_from_nodes(graph: Graph) -> None:
    """Every `Constant` node becomes a tensor of the graph."""
    for node in graph.nodes:
        if node.op_type == "Constant":
            graph.tensors.add(node.output[0], _value(node, graph.tensors.where))
    graph.nodes[:] = [node for node in graph.nodes if node.op_type != "Constant"]


def drop_names(graph: Graph) -> None:
    """`Identity` nodes go; one that gives an output stays, because the output has to keep its name."""
    kept, names = [], dict[str, str]()
    for node in graph.nodes:
        if node.op_type == "Identity" and node.output[0] not in graph.outputs:
            names[node.output[0]] = names.get(node.input[0], node.input[0])
        else:
            kept.append(node)
    graph.nodes[:] = kept
    graph.rename(names)


def _value(node: NodeProto, where: str) -> TensorProto:
    for attribute in node.attribute:
        if attribute.type == AttributeProto.TENSOR:
            found = TensorProto()
            found.CopyFrom(attribute.t)
            found.name = node.output[0]
            return found
        numbers = _NUMBERS.get(attribute.name)
        if numbers is not None:
            field, dtype = numbers
            return numpy_helper.from_array(np.array(getattr(attribute, field), dtype), node.output[0])
    raise SourceError(f"{where}: the constant {one_line(node.name)!r} holds no numbers, which is all that is read")


_NUMBERS = {
    "value_int": ("i", np.int64),
    "value_ints": ("ints", np.int64),
    "value_float": ("f", np.float32),
    "value_floats": ("floats", np.float32),
}
