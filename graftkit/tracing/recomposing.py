"""Makes one operator again of a batch norm that `run_decompositions()` took apart, so it can be flipped and learn.

Taken apart it keeps its mode for good, and as its new statistics are copied over those that its backward pass needs,
it cannot be trained either.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping

import torch
from torch import fx

aten = torch.ops.aten
_NORMS = frozenset(
    {aten._native_batch_norm_legit_functional.default, aten._native_batch_norm_legit_no_training.default}
)
_STATISTICS: Mapping[int, int] = {3: 3, 4: 4}  # which of its results replaces which of its arguments


def recompose(graph: fx.GraphModule) -> None:
    """Put `batch_norm` in the place of each norm that was taken apart, in place; one of unknown use stays."""
    for node in [node for node in graph.graph.nodes if node.target in _NORMS]:
        results = {user.args[1]: user for user in node.users if user.target is operator.getitem}
        copies = [copy for place in _STATISTICS if place in results for copy in results[place].users]
        if set(results) <= {0, *_STATISTICS} and all(_is_own(copy, node) for copy in copies):
            _put_whole(graph.graph, node, results, copies)


def _is_own(copy: fx.Node, node: fx.Node) -> bool:
    """Whether a call does nothing but put new statistics in the place of those that the norm was given."""
    if copy.target is not aten.copy_.default or copy.users:
        return False
    written, value = copy.args
    return isinstance(value, fx.Node) and written is node.args[_STATISTICS[value.args[1]]]  # type: ignore[index]


def _put_whole(graph: fx.Graph, node: fx.Node, results: Mapping[object, fx.Node], copies: list[fx.Node]) -> None:
    *tensors, training, momentum, eps = node.args if len(node.args) == 8 else (*node.args[:5], False, *node.args[5:])
    with graph.inserting_before(node):
        whole = graph.call_function(aten.batch_norm.default, (*tensors, training, momentum, eps, False))
    whole.meta = dict(results[0].meta) if 0 in results else {}
    whole.meta["nn_module_stack"] = node.meta.get("nn_module_stack")
    if 0 in results:
        results[0].replace_all_uses_with(whole)
    for done in (*copies, *results.values(), node):
        graph.erase_node(done)
