"""Makes the other mode's graph from a graph that holds one mode, by flipping what can be flipped."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import fx

from graftkit.model import copied
from graftkit.tracing.flags import in_training, switch
from graftkit.tracing.lasting import still_norms

aten = torch.ops.aten

_ATTENTION, _DECOMPOSED = "scaled_dot_product", "_native_batch_norm_legit_no_training"
_COUNTS = frozenset({aten.add_.Tensor, aten.copy_.default})
_COUNTER = "num_batches_tracked"


def holds_training(graph: fx.GraphModule) -> bool:
    """Whether the graph behaves as in `train()`."""
    return any(in_training(node) for part in _parts(graph) for node in part.graph.nodes)


def flipped(graph: fx.GraphModule, *, train: bool) -> tuple[fx.GraphModule, tuple[str, ...]]:
    """The graph in the other mode, and one line for each thing that could not be flipped.

    What stays random, or writes, in an evaluation graph is not among them: `lasting` finds that in every graph.
    """
    other = copied(graph)
    for part in _parts(other):
        for node in list(part.graph.nodes):
            switch(node, train=train)
        if not train:
            _uncount(part.graph)
        part.recompile()
    return other, _not_flipped(other) if train else ()


def _not_flipped(train: fx.GraphModule) -> tuple[str, ...]:
    names = [str(node.target) for part in _parts(train) for node in part.graph.nodes]
    notes = []
    if any(_DECOMPOSED in name for name in names):
        notes.append("a decomposed batch norm stays as in evaluation; export without run_decompositions()")
    if any(_ATTENTION in name for name in names):
        notes.append("dropout inside attention, if the model had any, is not in its evaluation graph: it stays off")
    notes.append(
        "stochastic depth, dropout that decomposing took out, and other branches of training, if the model had any,"
        " stay off"
    )
    return (*notes, *still_norms(train))


def _uncount(graph: fx.Graph) -> None:
    """Take out what counts the batches of training, in place."""
    for node in list(graph.nodes):
        if node.target in _COUNTS and _COUNTER in str(node.args[0]):
            if node.users:
                node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)


def _parts(graph: fx.GraphModule) -> Iterator[fx.GraphModule]:
    """The graph, and the graphs within it: branches, loops, regions with a precision of their own."""
    return (part for part in graph.modules() if isinstance(part, fx.GraphModule))
