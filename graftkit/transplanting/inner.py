"""Refuses files whose network is, or is once more, inside an If or a Loop: neither dendrites nor weights go there."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import onnx

from graftkit.core.errors import ExportError
from graftkit.folding import PREFIX
from graftkit.folding.names import DENDRITE_KEY, SITE_KEY, metadata
from graftkit.folding.ports import graphs_of
from graftkit.transplanting.deployed import Deployed
from graftkit.transplanting.known import Known
from graftkit.transplanting.matching import match_layers
from graftkit.transplanting.network import Network, stored_numbers

_GATE = f"{PREFIX}gate"


def check_inner(file: Deployed, known: Known, network: Network) -> None:
    """Raise ExportError where the file has a gate, or a layer or a dendrite of the model inside a node.

    What stands outside would be changed and proved there, while the branch went on with what it has.

    Args:
        network: the file's graph.
    """
    name = file.path.name
    if any(entry.key == _GATE for entry in file.model.metadata_props):
        raise ExportError(
            f"{name} was exported with --gate, and has the network once more inside an If, where neither dendrites nor"
            " weights can go; transplant into the file without a gate"
        )
    for graph in _inner(file.model):
        marked = (metadata(node).get(SITE_KEY) for node in graph.node if metadata(node).get(DENDRITE_KEY))
        found = match_layers(known, Network(graph, {**network.values, **stored_numbers(graph)}, file.opset))
        titles = [*(site for site in marked if site), *(known.title(match.ours) for match in found)]
        if titles:
            raise ExportError(
                f"{name} has the layer {titles[0]!r} or its dendrites inside an If, a Loop or a Scan, where neither"
                " dendrites nor weights can go; transplant into a file without it"
            )


def _inner(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    return islice(graphs_of(model.graph), 1, None)
