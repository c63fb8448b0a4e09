"""The names in an ONNX file that readers look at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, ValueInfoProto


def names_in(model: ModelProto) -> Iterator[str]:
    """The names of graphs, operators, domains, values, tensors, attributes and free sizes, in functions, too."""
    for entry in model.opset_import:
        yield entry.domain
    yield from _of_graph(model.graph)
    for function in model.functions:
        yield from _of_function(function)


def _of_graph(graph: GraphProto) -> Iterator[str]:
    yield graph.name
    for tensor in graph.initializer:
        yield tensor.name
    for values in (graph.input, graph.output, graph.value_info):
        yield from _of_values(values)
    yield from _of_nodes(graph.node)


def _of_values(values: Iterable[ValueInfoProto]) -> Iterator[str]:
    for value in values:
        yield value.name
        for dim in value.type.tensor_type.shape.dim:
            yield dim.dim_param


def _of_function(function: FunctionProto) -> Iterator[str]:
    yield from (function.name, function.domain, *function.input, *function.output, *function.attribute)
    for entry in function.opset_import:
        yield entry.domain
    yield from _of_nodes(function.node)


def _of_nodes(nodes: Iterable[NodeProto]) -> Iterator[str]:
    for node in nodes:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        for attribute in node.attribute:
            yield attribute.name
            yield attribute.ref_attr_name
            if attribute.HasField("g"):
                yield from _of_graph(attribute.g)
