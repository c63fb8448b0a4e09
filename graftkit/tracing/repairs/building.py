"""Adds calls to a graph in the place of another, with the values that tracing would have noted on them."""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx
from torch.utils import _pytree as pytree


class Builder:
    """Adds calls that carry the module path of the call they stand for, and fake values of their own."""

    def __init__(self, graph: fx.Graph, origin: fx.Node):
        self.graph, self.origin = graph, origin

    def __call__(self, target: Any, *args: Any) -> fx.Node:
        made = self.graph.call_function(target, args)
        made.meta = {key: value for key, value in self.origin.meta.items() if key != "val"}
        values = fx.node.map_arg(args, lambda n: n.meta["val"])
        tensors = [v for v in pytree.tree_leaves(values) if isinstance(v, Tensor)]
        fake = tensors[0].fake_mode  # type: ignore[attr-defined]
        with fake:
            made.meta["val"] = target(*values)
        return made
