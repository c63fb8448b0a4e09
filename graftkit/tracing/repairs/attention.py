"""Writes attention over other than four dimensions out as matrix products: the ONNX exporter takes four alone."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import fx

from graftkit.tracing.repairs.building import Builder

aten = torch.ops.aten
_ATTENTION = aten.scaled_dot_product_attention.default


def plain_attention(graph: fx.GraphModule) -> str | None:
    """Applies to `scaled_dot_product_attention` whose query has other than four dimensions (nest, twins, hiera)."""
    for node in list(graph.graph.nodes):
        if node.target is _ATTENTION and node.meta["val"].ndim != 4 and not node.kwargs.get("enable_gqa"):
            _write_out(graph, node)
    return None


def _write_out(graph: fx.GraphModule, node: fx.Node) -> None:
    names = [argument.name for argument in _ATTENTION._schema.arguments]
    given: dict[str, Any] = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    with graph.graph.inserting_before(node):
        build = _Builder(graph.graph, node)
        query, key, value = given["query"], given["key"], given["value"]
        scale = given.get("scale") or 1 / math.sqrt(int(query.meta["val"].shape[-1]))
        scores = build(
            aten.matmul.default, build(aten.mul.Tensor, query, scale), build(aten.transpose.int, key, -2, -1)
        )
        mask = given.get("attn_mask")
        if given.get("is_causal"):
            mask = build.causal(scores)
        if mask is not None:
            scores = build.masked(scores, mask)
        if mask is None:
            weights = build(aten.softmax.int, scores, -1)
        else:  # a query that may look at nothing gets nothing, not NaN, and neither do its gradients
            hidden = build(aten.all.dim, build(aten.eq.Scalar, scores, -math.inf), -1, True)
            shown = build(aten.masked_fill.Scalar, scores, hidden, 0.0)
            weights = build(aten.masked_fill.Scalar, build(aten.softmax.int, shown, -1), hidden, 0.0)
        if given.get("dropout_p"):
            weights = build(aten.dropout.default, weights, given["dropout_p"], True)
        result = build(aten.matmul.default, weights, value)
    result.meta["val"] = node.meta["val"]
    node.replace_all_uses_with(result)
    graph.graph.erase_node(node)


class _Builder(Builder):
    """With the ways in which attention is masked."""

    def masked(self, scores: fx.Node, mask: fx.Node) -> fx.Node:
        if mask.meta["val"].dtype is not torch.bool:
            return self(aten.add.Tensor, scores, mask)
        return self(aten.masked_fill.Scalar, scores, self(aten.logical_not.default, mask), -math.inf)

    def causal(self, scores: fx.Node) -> fx.Node:
        ones = self(aten.ones_like.default, scores)
        return self(aten.to.dtype, self(aten.tril.default, ones), torch.bool)
