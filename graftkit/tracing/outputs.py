"""Finds, among what a model gives in training, the output that feeds the loss in evaluation."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, fx

from graftkit.core.errors import TraceError
from graftkit.tracing.capture import Captured
from graftkit.tracing.free import fixed_size
from graftkit.tracing.reach import reached
from graftkit.tracing.sites import calls
from graftkit.tracing.unlifting import output_nodes


def same_output(train: Captured, evaluation: Captured, chosen: str) -> int:
    """Where the evaluation's output `chosen` is among those of training.

    Of those with its shape, the one that comes from the same calls with weights: auxiliary heads have calls of their
    own. Raises TraceError where none has its shape.
    """
    place = evaluation.outputs.index(chosen)
    offered, nodes = output_nodes(evaluation.graph), output_nodes(train.graph)
    wanted = offered[place]
    alike = _alike(nodes, wanted)
    if not alike:
        others = [name for name, node in zip(evaluation.outputs, offered, strict=True) if _alike(nodes, node)]
        hint = f"; --output names another: {', '.join(others)}" if others else ""
        raise TraceError(
            f"in training the model gives {', '.join(train.outputs)}, and none has the shape of {chosen!r}{hint}"
        )
    ours = _sources(evaluation.graph, wanted)

    def fit(index: int) -> tuple[int, bool, bool]:
        theirs = _sources(train.graph, nodes[index])
        return -len(ours ^ theirs), train.outputs[index] == chosen, index == place

    return max(alike, key=lambda index: (*fit(index), -index))


def _alike(nodes: Sequence[fx.Node], wanted: fx.Node) -> list[int]:
    """Which of them have its shape."""
    return [index for index, node in enumerate(nodes) if _same_shape(node.meta["val"], wanted.meta["val"])]


def _sources(graph: fx.GraphModule, output: fx.Node) -> set[str]:
    """The calls with weights on which an output depends."""
    behind = reached(graph, output, through_detach=True)
    return {key for key, node in calls(graph.graph).items() if node in behind}


def _same_shape(one: Tensor, other: Tensor) -> bool:
    if one.ndim != other.ndim or one.dtype != other.dtype:
        return False
    sizes = [(fixed_size(a), fixed_size(b)) for a, b in zip(one.shape[1:], other.shape[1:], strict=True)]
    return all(a == b or a is None or b is None for a, b in sizes)
