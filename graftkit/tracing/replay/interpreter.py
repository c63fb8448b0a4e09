"""Runs a TorchScript graph: control flow in Python where its conditions are known, `torch.cond` where they are not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from graftkit.core.errors import TraceError
from graftkit.tracing.replay.code import MODE_FLAGS, NORMS, always_raises, nodes_of, outer_names
from graftkit.tracing.replay.operators import SKIPPED, call_operator, call_python, knows_python
from graftkit.tracing.replay.primitives import PRIMITIVES

_MOST = 2_000_000  # operations in one run: what takes more is no model, or is no graph


class Interpreter:
    """One run. Values are Python's own: numbers, lists, tuples, dicts, tensors, and mirrors of modules."""

    def __init__(self, graph: Any, root: Any, constants: Mapping[str, Any], *, baked: bool):
        self.graph = graph
        self.root = root
        self.constants = constants
        self.baked = baked
        self.values: dict[str, Any] = {}
        self.handed: frozenset[str] = frozenset()  # attributes that a branch was handed
        self.left = _MOST

    def run(self, arguments: list[Any]) -> Any:
        """What the graph gives for the arguments, `self` left out. Raises TraceError."""
        names = [value.debugName() for value in self.graph.inputs()]
        self.values = dict(zip(names, [self.root, *arguments], strict=True))
        found = self._block(self.graph)
        return found[0] if len(found) == 1 else tuple(found)

    def _block(self, block: Any) -> list[Any]:
        for node in block.nodes():
            self._spend(node)
            self._node(node)
        return [self.values[value.debugName()] for value in block.outputs()]

    def _spend(self, node: Any) -> None:
        self.left -= 1
        if self.left < 0:
            raise TraceError(f"its code runs more than {_MOST} operations for one batch ({_where(node)})")

    def _node(self, node: Any) -> None:
        kind = node.kind()
        outputs = [value.debugName() for value in node.outputs()]
        if kind in SKIPPED:
            self.values.update(dict.fromkeys(outputs))
            return
        found = self._control.get(kind, Interpreter._compute)(self, node)
        single = len(outputs) == 1 and kind not in ("prim::If", "prim::Loop")
        self.values.update(zip(outputs, [found] if single else found or (), strict=bool(outputs)))

    def _compute(self, node: Any) -> Any:
        kind = node.kind()
        inputs = [self.values[value.debugName()] for value in node.inputs()]
        if kind in PRIMITIVES:
            return PRIMITIVES[kind](node, inputs)
        if self.baked and kind in MODE_FLAGS:
            inputs = self._in_mode(kind, inputs)
        if knows_python(kind, inputs):
            return call_python(kind, inputs)
        return call_operator(node, inputs)

    def _in_mode(self, kind: str, inputs: list[Any]) -> list[Any]:
        place = MODE_FLAGS[kind]
        if kind in NORMS and inputs[3] is None:
            return inputs
        return [*inputs[:place], self.root.training, *inputs[place + 1 :]]

    def _constant(self, node: Any) -> Any:
        name = node.output().debugName()
        return self.constants[name] if name in self.constants else node.output().toIValue()

    def _attribute(self, node: Any) -> Any:
        if node.output().debugName() in self.handed:
            return self.values[node.output().debugName()]
        return self.values[node.input().debugName()].read(node.s("name"))

    def _assign(self, node: Any) -> None:
        holder, value = (self.values[each.debugName()] for each in node.inputs())
        holder.write(node.s("name"), value)

    def _loop(self, node: Any) -> list[Any]:
        (body,) = node.blocks()
        most, going, *carried = (self.values[value.debugName()] for value in node.inputs())
        names = [value.debugName() for value in body.inputs()]
        if isinstance(most, torch.SymInt):
            most = int(most)
        for index in range(most):
            self._spend(node)  # a loop may be empty
            if isinstance(going, Tensor):
                raise TraceError(f"a loop ends by the values of a tensor, which no graph can hold ({_where(node)})")
            if not going:
                break
            self.values.update(zip(names, [index, *carried], strict=True))
            going, *carried = self._block(body)
        return carried

    def _if(self, node: Any) -> list[Any]:
        condition = self.values[node.input().debugName()]
        blocks = list(node.blocks())
        if not isinstance(condition, Tensor):
            return self._block(blocks[0 if condition else 1])
        lasting = [block for block in blocks if not always_raises(block)]
        if len(lasting) == 1:  # an assertion: a graph goes on
            return self._block(lasting[0])
        return self._branches(condition, blocks, node)

    def _branches(self, condition: Tensor, blocks: list[Any], node: Any) -> list[Any]:
        """Both branches as functions of every tensor that they read."""
        if not list(node.outputs()):
            raise TraceError(f"a branch by the values of a tensor changes what it finds ({_where(node)})")
        handed = self._attributes(blocks)
        outer = {name: self.values[name] for name in (*outer_names(blocks), *handed) if name in self.values}
        leaves, spec = pytree.tree_flatten(outer)
        places = [index for index, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]

        def branch(block: Any) -> Callable[..., tuple[Any, ...]]:
            def run(*given: Any) -> tuple[Any, ...]:
                own = list(leaves)
                for place, tensor in zip(places, given, strict=True):
                    own[place] = tensor
                before = self.values, self.handed
                self.values = {**self.values, **pytree.tree_unflatten(own, spec)}
                self.handed = self.handed | handed
                try:
                    return tuple(_fresh(value, given, node) for value in self._block(block))
                finally:
                    self.values, self.handed = before

            return run

        operands = tuple(leaves[place] for place in places)
        return list(torch.ops.higher_order.cond(condition, branch(blocks[0]), branch(blocks[1]), operands))

    def _attributes(self, blocks: list[Any]) -> frozenset[str]:
        """Names of the tensors that the branches find in modules: read before, so that they can be handed in."""
        found: set[str] = set()
        for node in (node for block in blocks for node in nodes_of(block)):
            if node.kind() == "prim::GetAttr" and node.input().debugName() in self.values:
                name = node.output().debugName()
                self.values[name] = value = self._attribute(node)
                found |= {name} if isinstance(value, Tensor | list) else set()
        return frozenset(found)

    _control: Mapping[str, Callable[[Interpreter, Any], Any]] = {
        "prim::Constant": _constant,
        "prim::GetAttr": _attribute,
        "prim::SetAttr": _assign,
        "prim::Loop": _loop,
        "prim::If": _if,
    }


def _fresh(value: Any, given: tuple[Any, ...], node: Any) -> Tensor:
    """A branch's result as a tensor that is none of those handed in."""
    if not isinstance(value, Tensor):
        raise TraceError(f"a branch by the values of a tensor gives a {type(value).__name__} ({_where(node)})")
    return value.clone() if any(value is each for each in given) else value


def _where(node: Any) -> str:
    return str(node.sourceRange()).strip().splitlines()[0].strip() or "no line is known"
