"""Tells what of training lasts in a graph of one mode: draws and writes in evaluation, norms that do not learn."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import fx

from graftkit.tracing.flags import argument, draws, flag_at, in_training
from graftkit.tracing.reach import writers
from graftkit.tracing.sites import module_path

_MOMENTUM = ("momentum", "exponential_average_factor")


def lasting(evaluation: fx.GraphModule) -> tuple[str, ...]:
    """One line for each draw and each write that an evaluation graph makes."""
    return (*_draws(evaluation), *_writes(evaluation))


def still_norms(train: fx.GraphModule) -> tuple[str, ...]:
    """One line for each norm of a training graph whose running statistics stay what they are."""
    return tuple(
        f"{place_of(node)}: its momentum is 0 in the evaluation that was saved (as momentum=None is there), so that"
        " training leaves its running statistics as they are"
        for node in train.graph.nodes
        if in_training(node) and any(argument(node, name) == 0.0 for name in _MOMENTUM)
    )


def place_of(node: fx.Node) -> str:
    """What a call is, and the module that makes it, as far as the graph says."""
    path = module_path(node)
    return f"{node.name} in {path}" if path else node.name


def _draws(graph: fx.GraphModule) -> Iterator[str]:
    for part in graph.modules():
        for node in part.graph.nodes if isinstance(part, fx.GraphModule) else ():
            if draws(node):
                yield f"{place_of(node)}: random numbers are drawn in evaluation as well, so that two runs differ"


def _writes(graph: fx.GraphModule) -> Iterator[str]:
    """Flags say of norms whether they write; `detach_` changes no value."""
    for node, calls in writers(graph, through_detach=True).items():
        found = [c for c in calls if flag_at(c) is None and c.target is not torch.ops.aten.detach_.default]
        if node.op == "get_attr" and found:
            yield f"{node.target}: evaluation writes into it as well, and the ONNX file keeps nothing from run to run"
