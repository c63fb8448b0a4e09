"""Makes the other mode's graph from a graph that holds one mode, by flipping what can be flipped."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import fx

from graftkit.model import copied

aten = torch.ops.aten

# Which argument says "training", by operator.
_FLAGS: Mapping[object, int] = {
    aten.batch_norm.default: 5,
    aten.instance_norm.default: 5,
    aten.dropout.default: 2,
    aten.dropout_.default: 2,
    aten.feature_dropout.default: 2,
    aten.alpha_dropout.default: 2,
    aten.feature_alpha_dropout.default: 2,
    aten.rrelu.default: 3,
    aten.gru.input: 6,
    aten.lstm.input: 6,
    aten.rnn_tanh.input: 6,
    aten.rnn_relu.input: 6,
}
_NORMS = frozenset({aten.batch_norm.default, aten.instance_norm.default})  # argument 3: the running mean
_RANDOM = frozenset(
    {
        aten.bernoulli.default, aten.bernoulli.p, aten.bernoulli_.float, aten.rand.default,
        aten.rand_like.default, aten.randn.default, aten.randn_like.default,
    }
)  # fmt: skip
_ATTENTION = aten.scaled_dot_product_attention.default
_COUNTER = aten.add_.Tensor


def holds_training(graph: fx.GraphModule) -> bool:
    """Whether the graph behaves as in `train()`."""
    return any(
        (_flips(node) and node.args[_FLAGS[node.target]] is True) or _attention_dropout(node) > 0
        for node in graph.graph.nodes
    )


def flipped(graph: fx.GraphModule, *, train: bool) -> tuple[fx.GraphModule, tuple[str, ...]]:
    """The graph in the other mode, and one line for each thing that could not be flipped."""
    other = copied(graph)
    notes: list[str] = []
    for node in list(other.graph.nodes):
        if _flips(node):
            node.update_arg(_FLAGS[node.target], train)
        elif not train and _attention_dropout(node) > 0:
            _set_attention_dropout(node, 0.0)
        elif str(node.target).startswith("aten._native_batch_norm_legit"):
            notes.append(f"{node.name}: a decomposed batch norm stays as it is in both modes")
        elif not train and node.target in _RANDOM:
            notes.append(f"{node.name}: randomness of training stays in the evaluation graph")
        elif not train and node.target is _COUNTER and "num_batches_tracked" in str(node.args[0]):
            if node.users:
                node.replace_all_uses_with(node.args[0])
            other.graph.erase_node(node)
    if train and any(node.target is _ATTENTION for node in other.graph.nodes):
        notes.append("dropout inside attention, if the model had any, is not in its evaluation graph: it stays off")
    if train:
        notes.append("stochastic depth and other branches of training, if the model had any, stay off")
    other.recompile()
    return other, tuple(notes)


def _flips(node: fx.Node) -> bool:
    """Whether its flag says which mode it is in; a norm without running statistics has the same in both."""
    return node.target in _FLAGS and (node.target not in _NORMS or node.args[3] is not None)


def _attention_dropout(node: fx.Node) -> float:
    if node.target is not _ATTENTION:
        return 0.0
    value = node.kwargs.get("dropout_p", node.args[4] if len(node.args) > 4 else 0.0)
    return float(value) if isinstance(value, int | float) else 0.0


def _set_attention_dropout(node: fx.Node, value: float) -> None:
    if "dropout_p" in node.kwargs:
        node.update_kwarg("dropout_p", value)
    else:
        node.update_arg(4, value)
