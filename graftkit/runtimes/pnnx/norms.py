"""An instance norm over one axis gets a second of size one: ncnn knows it over two."""

from __future__ import annotations

import onnx
from onnx import helper

from graftkit.runtimes.pnnx.known import Known


def give_width(node: onnx.NodeProto, known: Known) -> list[onnx.NodeProto]:
    """[rows, channels, length] as [rows, channels, 1, length], and back."""
    shape = known.shapes.get(node.input[0]) if node.op_type == "InstanceNormalization" else None
    if shape is None or len(shape) != 3 or not all(shape):
        return []
    result, base = node.output[0], known.base(node)
    sizes = known.listed(f"{base}.wider", [*shape[:2], 1, shape[2]])
    norm = onnx.NodeProto()
    norm.CopyFrom(node)
    norm.input[0], norm.output[0] = f"{base}.wide", f"{base}.normed"
    return [
        helper.make_node("Reshape", [node.input[0], sizes], [norm.input[0]]),  # an Unsqueeze has two forms, by opset
        norm,
        helper.make_node("Reshape", [norm.output[0], known.listed(f"{base}.narrow", shape)], [result]),
    ]
