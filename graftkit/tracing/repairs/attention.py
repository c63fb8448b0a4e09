"""Writes attention over more than four dimensions out as matrix products: the ONNX exporter takes four alone."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, fx

aten = torch.ops.aten
_ATTENTION = aten.scaled_dot_product_attention.default


def plain_attention(graph: fx.GraphModule) -> str | None:
    """Applies to `scaled_dot_product_attention` whose query has other than four dimensions (nest, twins, hiera)."""
    for node in list(graph.graph.nodes):
        if node.target is _ATTENTION and node.meta["val"].ndim > 4:
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
        weights = build(aten.softmax.int, scores, -1)
        if given.get("dropout_p"):
            weights = build(aten.dropout.default, weights, given["dropout_p"], True)
        result = build(aten.matmul.default, weights, value)
    result.meta["val"] = node.meta["val"]
    node.replace_all_uses_with(result)
    graph.graph.erase_node(node)


class _Builder:
    """Adds calls that carry the place and the values of the call they stand for."""

    def __init__(self, graph: fx.Graph, origin: fx.Node):
        self.graph, self.origin = graph, origin

    def __call__(self, target: Any, *args: Any) -> fx.Node:
        made = self.graph.call_function(target, args)
        made.meta = {key: value for key, value in self.origin.meta.items() if key != "val"}
        values = fx.node.map_arg(args, lambda n: n.meta["val"])
        fake = next(v for v in values if isinstance(v, Tensor)).fake_mode  # type: ignore[attr-defined]
        with fake:
            made.meta["val"] = target(*values)
        return made

    def masked(self, scores: fx.Node, mask: fx.Node) -> fx.Node:
        if mask.meta["val"].dtype is not torch.bool:
            return self(aten.add.Tensor, scores, mask)
        return self(aten.masked_fill.Scalar, scores, self(aten.logical_not.default, mask), -math.inf)

    def causal(self, scores: fx.Node) -> fx.Node:
        ones = self(aten.ones_like.default, scores)
        return self(aten.to.dtype, self(aten.tril.default, ones), torch.bool)
