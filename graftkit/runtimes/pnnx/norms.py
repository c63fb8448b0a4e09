"""An instance norm over one axis gets a second of size one: ncnn knows it over two."""

from __future__ import annotations

import onnx

from graftkit.runtimes.pnnx.known import Known


def give_width(node: onnx.NodeProto, known: Known) -> list[onnx.NodeProto]:
    """[rows, channels, length] as [rows, channels, 1, length], and back."""
    shape = known.shapes.get(node.input[0]) if node.op_type == "InstanceNormalization" else None
    if shape is None or len(shape) != 3:
        return []
    result = node.output[0]
    axis = known.listed(f"{result}.width", [2])
    wide = onnx.helper.make_node("Unsqueeze", [node.input[0], axis], [f"{result}.wide"])
    norm = onnx.NodeProto()
    norm.CopyFrom(node)
    norm.input[0], norm.output[0] = wide.output[0], f"{result}.normed"
    return [wide, norm, onnx.helper.make_node("Squeeze", [norm.output[0], axis], [result])]
