"""Names all outputs of an LSTM: MNN's converter ends its process where any is left out."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from graftkit.folding.rewrites.tensors import fresh, nodes_of

_OUTPUTS = ("sequence", "hidden", "cell")


def name_lstm_outputs(graph: gs.Graph) -> int:
    """LSTM(x) -> Y becomes LSTM(x) -> Y, Y_h, Y_c, of which nobody has to read the last ones."""
    named = 0
    for node in nodes_of(graph, "LSTM"):
        given = next((tensor for tensor in node.outputs if not tensor.is_empty()), None)
        if given is None or len([tensor for tensor in node.outputs if not tensor.is_empty()]) == len(_OUTPUTS):
            continue
        for place, what in enumerate(_OUTPUTS):
            _name(node, place, gs.Variable(fresh(graph, f"{given.name}_{what}"), dtype=given.dtype))
        named += 1
    return named


def _name(node: gs.Node, place: int, output: gs.Variable) -> None:
    if place >= len(node.outputs):
        node.outputs.append(output)
    elif node.outputs[place].is_empty():
        node.outputs[place] = output
