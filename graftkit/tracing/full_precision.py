"""Keeps, in a graph that is trained, the regions that its author took out of mixed precision.

Brought into the graph itself, what is inside `torch.autocast(..., enabled=False)` would be cast like everything else.
Autocast is off where the data are, wherever the region was traced. Evaluation is in full precision anyway.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx


@fx.has_side_effect
def begin(data: Tensor) -> torch.autocast:
    """From here on without autocast."""
    region = torch.autocast(data.device.type, enabled=False)
    region.__enter__()  # type: ignore[no-untyped-call]
    return region


@fx.has_side_effect
def end(region: torch.autocast) -> None:
    """From here on as before the region."""
    region.__exit__(None, None, None)


def taken_out(graph: fx.GraphModule) -> None:
    """Take the marks of such regions out of an evaluation graph, in place."""
    for node in reversed(list(graph.graph.nodes)):
        if node.target in (begin, end):
            graph.graph.erase_node(node)
    graph.recompile()
