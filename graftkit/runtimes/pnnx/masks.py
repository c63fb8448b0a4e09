"""Masks become numbers, zero or one: ncnn has no truth values.

A choice between two constants becomes their sum, of which one counts; what is zero in a mask of whole numbers is looked
up in a table, as ncnn makes no other numbers of whole ones.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from graftkit.runtimes.pnnx.known import Known

_ROWS = 10  # of the table: pnnx tries an embedding with indices up to that; ncnn takes the last row beyond it


def number_masks(node: onnx.NodeProto, known: Known) -> list[onnx.NodeProto]:
    """For what makes a truth value, joins two, or chooses by one. A mask's numbers are taken to be none below zero."""
    result, base = node.output[0], known.base(node)
    if node.op_type == "Where" and node.input[0] in known.truths:
        mask, *choices = node.input
        one = known.held(np.ones((), np.float32), f"{base}.one")
        return [
            helper.make_node("Mul", [mask, choices[0]], [f"{base}.chosen"]),
            helper.make_node("Sub", [one, mask], [f"{base}.not"]),
            helper.make_node("Mul", [f"{base}.not", choices[1]], [f"{base}.other"]),
            helper.make_node("Add", [f"{base}.chosen", f"{base}.other"], [result]),
        ]
    if result not in known.truths:
        return []
    match node.op_type:
        case "Cast":
            return _looked_up(node, known)
        case "Not":
            one = known.held(np.ones((), np.float32), f"{base}.one")
            return [helper.make_node("Sub", [one, node.input[0]], [result])]
        case "And" | "Or":
            names = [_number(name, f"{base}.{place}", known) for place, name in enumerate(node.input)]
            return [helper.make_node("Mul" if node.op_type == "And" else "Max", names, [result])]
    return []


def _looked_up(node: onnx.NodeProto, known: Known) -> list[onnx.NodeProto]:
    result, base = node.output[0], known.base(node)
    table = known.held(np.minimum(np.arange(_ROWS), 1).astype(np.float32)[:, None], f"{base}.table")
    sizes = known.listed(f"{base}.sizes", known.shapes[node.input[0]])
    return [
        helper.make_node("Gather", [table, node.input[0]], [f"{base}.found"]),
        helper.make_node("Reshape", [f"{base}.found", sizes], [result]),
    ]


def _number(name: str, new: str, known: Known) -> str:
    """The name of what has the numbers of a truth value, or of a constant one."""
    if name in known.truths:
        return name
    return known.held(numpy_helper.to_array(known.constants[name]).astype(np.float32), new)
