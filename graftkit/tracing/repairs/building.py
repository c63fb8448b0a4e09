"""Adds calls to a graph in the place of another, with the values that tracing would have noted on them."""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx
from torch._dispatch.python import enable_python_dispatcher
from torch.utils import _pytree as pytree


class Builder:
    """Adds calls that carry the module path of the call they stand for, and fake values of their own."""

    def __init__(self, graph: fx.Graph, origin: fx.Node):
        self.graph, self.origin = graph, origin

    def __call__(self, target: Any, *args: Any, **keywords: Any) -> fx.Node:
        made = self.graph.call_function(target, args, keywords)
        made.meta = {key: value for key, value in self.origin.meta.items() if key != "val"}
        values = fx.node.map_arg(args, lambda n: n.meta["val"])
        tensors = [v for v in pytree.tree_leaves((values, self.origin.meta["val"])) if isinstance(v, Tensor)]
        fake = tensors[0].fake_mode  # type: ignore[attr-defined]
        with fake, enable_python_dispatcher():  # else some calls fix the sizes that are free
            made.meta["val"] = target(*values, **keywords)
        return made
