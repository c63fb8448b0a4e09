"""The `depthwise` layout: strengths as depthwise 1x1 convolutions, which stay in a runtime's blocked memory."""

from __future__ import annotations

import onnx
from onnx import helper, numpy_helper

from graftkit.folding.layouts.sites import SiteNodes, constants, drop_unread, place

_SPATIAL = "ConvTranspose", "Conv"


def depthwise(graph: onnx.GraphProto, site: SiteNodes) -> bool:
    """Each product of a dendrite's activity with one number a channel becomes a depthwise convolution.

    Elementwise products make runtimes with a blocked layout (onnxruntime's NCHWc) put every channel back in its place
    first. Returns whether there were any.
    """
    if site.own.op_type not in _SPATIAL:
        return False
    known = constants(graph)
    ranks = {name: len(tensor.dims) for name, tensor in known.items()}
    spatial = ranks.get(site.own.input[1], 2) - 2
    found = False
    for node in [node for node in site.dendrites if node.op_type == "Mul"]:
        factors = [name for name in node.input if name in known and _one_a_channel(known[name], spatial)]
        if len(factors) != 1:
            continue
        (activity,) = [name for name in node.input if name != factors[0]]
        if not _as_many(graph, activity, known[factors[0]]):
            continue
        _replace(graph, node, activity, known[factors[0]])
        found = True
    return found


def _one_a_channel(tensor: onnx.TensorProto, spatial: int) -> bool:
    sizes = tuple(tensor.dims)
    return spatial > 0 and len(sizes) == spatial + 1 and sizes[0] > 1 and set(sizes[1:]) == {1}


def _as_many(graph: onnx.GraphProto, activity: str, factor: onnx.TensorProto) -> bool:
    """Whether the activity is known to have a channel for each number, and none is spread over others."""
    value = next((value for value in graph.value_info if value.name == activity), None)
    if value is None:
        return False
    sizes = value.type.tensor_type.shape.dim
    return len(sizes) == len(factor.dims) + 1 and sizes[1].dim_value == factor.dims[0]


def _replace(graph: onnx.GraphProto, node: onnx.NodeProto, activity: str, factor: onnx.TensorProto) -> None:
    values = numpy_helper.to_array(factor)
    weight = numpy_helper.from_array(values.reshape(len(values), 1, *values.shape[1:]), f"{factor.name}.depthwise")
    made = helper.make_node("Conv", [activity, weight.name], list(node.output), group=len(values))
    made.name = f"{node.name.removesuffix('Mul')}Scale" if node.name.endswith("Mul") else f"{node.name}/Scale"
    made.metadata_props.extend(node.metadata_props)
    at = place(graph, node)
    del graph.node[at]
    graph.node.insert(at, made)
    if weight.name not in {tensor.name for tensor in graph.initializer}:
        graph.initializer.append(weight)
    drop_unread(graph, {factor.name})
