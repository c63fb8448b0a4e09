"""Joins a product with a weight and the addition of a bias: together they are the Linear call that was exported."""

from __future__ import annotations

from onnx import NodeProto

from graftkit.sources.onnx_normalise.graph import Graph


def join_bias(graph: Graph) -> None:
    """`MatMul` with a constant matrix, read by one `Add` of a constant row alone, becomes `Linear`, which is our word.

    `Linear` has the inputs (x, weight [in, out], bias [out]) and stands where the addition stood.
    """
    uses = graph.uses()
    joined: set[int] = set()
    products = {node.output[0]: node for node in graph.nodes if _is_product(node, graph)}
    for node in (node for node in graph.nodes if node.op_type == "Add" and len(node.input) == 2):
        for product, bias in (tuple(node.input), tuple(node.input)[::-1]):
            made = products.get(product)
            if made is not None and uses[product] == 1 and _is_row(bias, made, graph):
                node.op_type, node.name = "Linear", made.name or node.name
                node.input[:] = [*made.input, bias]
                joined.add(id(made))
                break
    graph.nodes[:] = [node for node in graph.nodes if id(node) not in joined]


def _is_product(node: NodeProto, graph: Graph) -> bool:
    weight = node.input[1] if node.op_type == "MatMul" and len(node.input) == 2 else ""
    return weight in graph.tensors and len(graph.tensors.size(weight)) == 2


def _is_row(name: str, product: NodeProto, graph: Graph) -> bool:
    """Whether it is a constant with a number for each column of the weight."""
    return name in graph.tensors and graph.tensors.size(name) == (graph.tensors.size(product.input[1])[1],)
