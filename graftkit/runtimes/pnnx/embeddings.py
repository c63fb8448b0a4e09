"""An embedding says its axis by saying none: pnnx knows a Gather of rows of weights by that it has no attribute."""

from __future__ import annotations

import onnx
from onnx import helper

from graftkit.runtimes.pnnx.known import Known


def name_no_axis(node: onnx.NodeProto, known: Known) -> list[onnx.NodeProto]:
    """Zero is the axis where none is named. ncnn takes a negative index for the first row, where ONNX counts back."""
    if node.op_type != "Gather" or node.input[0] not in known.constants or node.input[1] in known.constants:
        return []
    named = [option.i for option in node.attribute if option.name == "axis"]
    if len(known.constants[node.input[0]].dims) != 2 or named not in ([0], [-2]):
        return []
    return [helper.make_node("Gather", node.input, node.output, name=node.name)]
