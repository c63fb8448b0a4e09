"""Queries, keys and values are cut out before they are split into heads: ncnn has no five axes.

What torch writes as a Reshape to [rows, tokens, 3, heads, size], a Transpose, and one of its three, is a Slice of the
last axis, a Reshape to four axes, and a Transpose.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import onnx
from onnx import helper

from graftkit.runtimes.pnnx.known import Known, Shape


@dataclass(frozen=True)
class _Heads:
    """Where a part comes from: its source, the sizes that it is split into, the order they are turned into."""

    source: str
    split: Shape
    order: tuple[int, ...]


def cut_first(node: onnx.NodeProto, known: Known) -> list[onnx.NodeProto]:
    """For one of the three, taken by a Squeeze of a Slice, or by a Gather."""
    part = _taken(node, known)
    heads = _heads(part[0], known) if part else None
    if part is None or heads is None:
        return []
    _, axis, index = part
    third, result, base = heads.order[axis], node.output[0], known.base(node)
    width = prod(heads.split[third + 1 :])
    if known.shapes[heads.source][-1] != width * heads.split[third]:
        return []
    ends = [known.listed(f"{base}.{name}", [number]) for name, number in
            (("start", index * width), ("end", (index + 1) * width), ("last", -1))]  # fmt: skip
    sizes = known.listed(f"{base}.sizes", [size for place, size in enumerate(heads.split) if place != third])
    order = [place - (place > third) for place in heads.order if place != third]
    return [
        helper.make_node("Slice", [heads.source, *ends], [f"{base}.cut"]),
        helper.make_node("Reshape", [f"{base}.cut", sizes], [f"{base}.split"]),
        helper.make_node("Transpose", [f"{base}.split"], [result], perm=order),
    ]


def _heads(turned: str, known: Known) -> _Heads | None:
    turn = known.maker(turned, "Transpose")
    view = known.maker(turn.input[0], "Reshape") if turn else None
    if turn is None or view is None or not {view.input[0], view.output[0]} <= set(known.shapes):
        return None
    order = next((tuple(option.ints) for option in turn.attribute if option.name == "perm"), ())
    split = known.shapes[view.output[0]]
    return _Heads(view.input[0], split, order) if len(split) == len(order) == 5 and all(split) else None


def _taken(node: onnx.NodeProto, known: Known) -> tuple[str, int, int] | None:
    """What a node takes a part of, along which axis, and which part."""
    match node.op_type:
        case "Gather":
            where = known.numbers(node, 1)
            axis = next((option.i for option in node.attribute if option.name == "axis"), 0)
            scalar = where is not None and not known.constants[node.input[1]].dims
            return _part(node.input[0], axis, where[0], known) if where and scalar else None
        case "Squeeze":
            gone = known.numbers(node, 1)
            return _squeezed(known.makers.get(node.input[0]), gone[0], known) if gone and len(gone) == 1 else None
    return None


def _squeezed(cut: onnx.NodeProto | None, axis: int, known: Known) -> tuple[str, int, int] | None:
    """The same of what made a value whose axis is taken away."""
    if cut is None or cut.op_type != "Slice" or len(cut.input) < 4:
        return None
    starts, axes = known.numbers(cut, 1), known.numbers(cut, 3)
    return _part(cut.input[0], axis, starts[0], known) if starts and axes == [axis] else None


def _part(whole: str, axis: int, index: int, known: Known) -> tuple[str, int, int] | None:
    shape = known.shapes.get(whole)
    return (whole, axis % len(shape), index % shape[axis]) if shape and shape[axis] else None
