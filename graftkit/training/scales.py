"""The scales of a network's channels: what its normalisations multiply by, and the strengths of its dendrites."""

from __future__ import annotations

from torch import nn

from graftkit.model import GraftedModel

_WEIGHT_AT = {"batch_norm": 1, "layer_norm": 2, "group_norm": 2}  # among the arguments of the operator


def scales(model: GraftedModel) -> list[nn.Parameter]:
    """Each once."""
    found = {strength: None for member in model.members() for strength in member.strengths()}
    graph = model.graphs[0]
    for node in graph.graph.nodes:
        name = str(node.target).split(".")[1] if str(node.target).startswith("aten.") else ""
        given = node.args[_WEIGHT_AT[name]] if name in _WEIGHT_AT else None
        if given is not None and getattr(given, "op", "") == "get_attr":
            found[graph.get_parameter(str(given.target))] = None
    return list(found)
