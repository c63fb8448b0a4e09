"""The `convolved` layout: what a `context` dendrite makes of a layer's mean as 1x1 convolutions of one position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
from onnx import numpy_helper

from graftkit.folding.layouts.sites import SiteNodes, attributes, constants, drop_unread, place

_ELEMENTWISE = frozenset({"Tanh", "Relu", "Sigmoid", "Gelu", "Erf"})


def convolved(graph: onnx.GraphProto, site: SiteNodes) -> bool:
    """ReduceMean, Gemm, ..., Unsqueeze becomes GlobalAveragePool and convolutions, which keep their dimensions.

    So runtimes compute nonlinearities within the convolutions, and keep their own order of channels. Returns whether
    there were any.
    """
    chains = [_chain(graph, node, site, constants(graph)) for node in site.dendrites if node.op_type == "ReduceMean"]
    for chain in chains:
        if chain is not None:
            _replace(graph, chain, constants(graph))
    return any(chain is not None for chain in chains)


def _chain(
    graph: onnx.GraphProto, mean: onnx.NodeProto, site: SiteNodes, known: Mapping[str, onnx.TensorProto]
) -> list[onnx.NodeProto] | None:
    """The nodes from the mean over all positions to where its dimensions come back; None where others read between."""
    spatial = len(known[site.own.input[1]].dims) - 2 if site.own.input[1] in known else 0
    if site.own.op_type not in ("Conv", "ConvTranspose") or attributes(mean).get("keepdims", 1):
        return None
    if spatial < 1 or _axes(mean, known) not in (list(range(2, 2 + spatial)), list(range(-spatial, 0))):
        return None
    chain = [mean]
    while chain[-1].op_type != "Unsqueeze":
        readers = [node for node in graph.node if chain[-1].output[0] in node.input]
        if len(readers) != 1 or chain[-1].output[0] in {value.name for value in graph.output}:
            return None
        (reader,) = readers
        if not any(reader is node for node in site.dendrites) or not _fits(reader, chain[-1], known):
            return None
        chain.append(reader)
    return chain if sorted(_axes(chain[-1], known) or ()) == list(range(2, 2 + spatial)) else None


def _fits(node: onnx.NodeProto, before: onnx.NodeProto, known: Mapping[str, onnx.TensorProto]) -> bool:
    if node.op_type in _ELEMENTWISE or node.op_type == "Unsqueeze":
        return True
    told = attributes(node)
    plain = told.get("alpha", 1.0) == told.get("beta", 1.0) == 1.0 and not told.get("transA", 0)
    constant = all(name in known for name in node.input[1:])
    return node.op_type == "Gemm" and plain and constant and node.input[0] == before.output[0] and all(
        len(known[name].dims) == 1 for name in node.input[2:]
    )  # fmt: skip


def _axes(node: onnx.NodeProto, known: Mapping[str, onnx.TensorProto]) -> list[int] | None:
    """The axes a node is told, in opset 17 by an attribute."""
    if len(node.input) > 1:
        return numpy_helper.to_array(known[node.input[1]]).reshape(-1).tolist() if node.input[1] in known else None
    told = attributes(node).get("axes")
    return list(told) if isinstance(told, Sequence) else None


def _replace(graph: onnx.GraphProto, chain: list[onnx.NodeProto], known: Mapping[str, onnx.TensorProto]) -> None:
    """Change the chain's nodes in place; their values have further dimensions from now on."""
    mean, *middle, last = chain
    ones = (1,) * len(_axes(last, known) or ())
    unread = {name for node in chain for name in node.input[1:]}
    mean.op_type = "GlobalAveragePool"
    mean.name = mean.name.replace("ReduceMean", "GlobalAveragePool")
    del mean.attribute[:], mean.input[1:]
    for node in middle:
        if node.op_type != "Gemm":
            continue  # a nonlinearity, which does not care
        weight = numpy_helper.to_array(known[node.input[1]])
        rows = weight if attributes(node).get("transB", 0) else weight.T
        stored = numpy_helper.from_array(rows.reshape(*rows.shape, *ones).copy(), f"{node.input[1]}.convolved")
        node.op_type, node.name = "Conv", node.name.replace("Gemm", "Conv")
        del node.attribute[:]
        node.input[1] = stored.name
        graph.initializer.append(stored)
    gone = {value.name for value in graph.value_info} & {node.output[0] for node in (mean, *middle)}
    for value in [value for value in graph.value_info if value.name in gone]:
        graph.value_info.remove(value)
    (middle or [mean])[-1].output[0] = last.output[0]
    del graph.node[place(graph, last)]
    drop_unread(graph, unread)
