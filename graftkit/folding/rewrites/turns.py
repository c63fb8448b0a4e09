"""Takes out turns and reshapes that others undo or take over."""

from __future__ import annotations

from collections.abc import Sequence, Set

import numpy as np
import onnx_graphsurgeon as gs

from graftkit.folding.rewrites.sizes import Dim, sizes_of
from graftkit.folding.rewrites.tensors import fresh, held, nodes_of


def merge_turns(graph: gs.Graph) -> int:
    """Two Transposes become one; of two Reshapes the last is enough; an axis of one that comes and goes is not made.

    A Reshape, Transpose, Reshape that swaps the last two dimensions becomes one Transpose: the exporter turns the keys
    of an attention so, whatever their rank.
    """
    outputs = held(graph)
    swapped = sum(_swapped(node) for node in nodes_of(graph))  # first: the others take apart what it knows
    return swapped + sum(
        _turned(node) or _reshaped(node) or _without_axis(node, outputs) or _squeezed(graph, node)
        for node in nodes_of(graph)
    )


def _turned(node: gs.Node) -> bool:
    before = _maker(node, "Transpose") if node.op == "Transpose" else None
    if before is None or not node.attrs.get("perm") or not before.attrs.get("perm"):
        return False
    node.attrs["perm"] = [before.attrs["perm"][place] for place in node.attrs["perm"]]
    node.inputs[0] = before.inputs[0]
    return True


def _reshaped(node: gs.Node) -> bool:
    """A Reshape that names all of its sizes does not care what it was before."""
    before = _maker(node, "Reshape", "Unsqueeze", "Squeeze", "Flatten") if node.op == "Reshape" else None
    sizes = None if before is None else _numbers(node)
    if before is None or sizes is None or (0 in sizes and not node.attrs.get("allowzero", 0)):
        return False
    node.inputs[0] = before.inputs[0]
    return True


def _squeezed(graph: gs.Graph, node: gs.Node) -> bool:
    """An axis that a Transpose moves and a Squeeze takes away need not be moved, where the others stay in order."""
    turn = _maker(node, "Transpose") if node.op == "Squeeze" else None
    order = list(turn.attrs.get("perm", ())) if turn is not None else []
    gone = _numbers(node) if order else None
    if turn is None or gone is None or len(gone) != 1:
        return False
    axis = order.pop(gone[0])
    if order != sorted(order):
        return False
    node.inputs = [
        turn.inputs[0],
        gs.Constant(fresh(graph, f"{node.outputs[0].name}_axis"), np.array([axis], np.int64)),
    ]
    return True


def _without_axis(node: gs.Node, outputs: Set[str]) -> bool:
    """Unsqueeze, Transpose, Squeeze of one axis become the Transpose of the others."""
    turn = _maker(node, "Transpose") if node.op == "Squeeze" else None
    grown = _maker(turn, "Unsqueeze") if turn is not None else None
    if turn is None or grown is None or len(turn.outputs[0].outputs) != 1 or turn.outputs[0].name in outputs:
        return False
    order, made, dropped = turn.attrs.get("perm"), _numbers(grown), _numbers(node)
    if not order or made is None or dropped is None or len(made) != 1 or len(dropped) != 1:
        return False
    axis, gone = made[0] % len(order), dropped[0] % len(order)
    if order[gone] != axis:
        return False
    turn.attrs["perm"] = [place - (place > axis) for place in order if place != axis]
    turn.inputs[0] = grown.inputs[0]
    turn.outputs[0] = node.outputs[0]
    node.inputs.clear()
    node.outputs.clear()
    return True


def _swapped(node: gs.Node) -> bool:
    """Leading dimensions are joined, the last two swapped, and the leading ones parted again."""
    turn = _maker(node, "Transpose") if node.op == "Reshape" else None
    joined = _maker(turn, "Reshape") if turn is not None else None
    if turn is None or joined is None or list(turn.attrs.get("perm", ())) != [0, 2, 1]:
        return False
    source = joined.inputs[0]
    if source.shape is None or len(source.shape) < 3:
        return False
    sizes = [size if isinstance(size, int) else Dim(source.name, at) for at, size in enumerate(source.shape)]
    flat, result = sizes_of(joined.inputs[1]), sizes_of(node.inputs[1])
    if flat != [-1, *sizes[-2:]] or result != [*sizes[:-2], sizes[-1], sizes[-2]]:
        return False
    last = len(sizes) - 1
    node.op, node.attrs = "Transpose", {"perm": [*range(last - 1), last, last - 1]}
    node.inputs = [source]
    return True


def _maker(node: gs.Node, *operators: str) -> gs.Node | None:
    """What makes the node's first input, if it is one of these operators."""
    made = node.inputs[0].inputs if node.inputs else []
    return made[0] if made and made[0].op in operators else None


def _numbers(node: gs.Node) -> Sequence[int] | None:
    """The whole numbers that the node is given behind its data, if they are known."""
    found = sizes_of(node.inputs[1]) if len(node.inputs) > 1 else None
    return [size for size in found if isinstance(size, int)] if found and Dim not in map(type, found) else None
