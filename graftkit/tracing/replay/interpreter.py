"""Runs a TorchScript graph: control flow in Python where its conditions are known, `torch.cond` where they are not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from graftkit.core.errors import TraceError
from graftkit.tracing.flags import flag_of
from graftkit.tracing.replay.code import Block, Step, outer_names
from graftkit.tracing.replay.operators import SKIPPED, call_operator, call_python, knows_python
from graftkit.tracing.replay.primitives import PRIMITIVES
from graftkit.tracing.replay.regions import Region

_MOST = 500_000  # operations in one run: what takes more is no model, or is no graph


class Interpreter:
    """One run. Values are Python's own: numbers, lists, tuples, dicts, tensors, and mirrors of modules."""

    def __init__(self, code: Block, root: Any, constants: Mapping[str, Any], *, baked: bool):
        self.code = code
        self.root = root
        self.constants = constants
        self.baked = baked
        self.values: dict[str, Any] = {}
        self.handed: frozenset[str] = frozenset()  # attributes that a branch was handed
        self.left = _MOST
        self.regions: list[Region] = []  # those that have begun, and not ended

    def run(self, arguments: list[Any]) -> Any:
        """What the code gives for the arguments, `self` left out. Raises TraceError."""
        self.values = dict(zip(self.code.inputs, [self.root, *arguments], strict=True))
        gradients = torch.is_grad_enabled()
        try:
            found = self._block(self.code)
        finally:
            self._leave_all(gradients)
        return found[0] if len(found) == 1 else tuple(found)

    def _leave_all(self, gradients: bool) -> None:
        """After an error in a region, and where the code itself turned gradients off, all is as it was before."""
        while self.regions:
            self.regions.pop().leave()
        if torch.is_grad_enabled() != gradients:
            torch._C._set_grad_enabled(gradients)

    def _block(self, block: Block) -> list[Any]:
        for step in block.steps:
            self._spend(step)
            self._step(step)
        return [self.values[name] for name in block.outputs]

    def _spend(self, step: Step) -> None:
        self.left -= 1
        if self.left < 0:
            raise TraceError(f"its code runs more than {_MOST} operations for one batch ({_where(step)})")

    def _step(self, step: Step) -> None:
        if step.kind in SKIPPED:
            self.values.update(dict.fromkeys(step.outputs))
            return
        found = self._control.get(step.kind, Interpreter._compute)(self, step)
        single = len(step.outputs) == 1 and not step.blocks
        self.values.update(zip(step.outputs, [found] if single else found or (), strict=bool(step.outputs)))

    def _compute(self, step: Step) -> Any:
        inputs = [self.values[name] for name in step.inputs]
        if step.kind in PRIMITIVES:
            return PRIMITIVES[step.kind](step.node, inputs)
        if self.baked and step.kind.startswith("aten::"):
            inputs = self._in_mode(step.node.schema(), inputs)
        if knows_python(step.kind, inputs):
            return call_python(step.kind, inputs)
        return call_operator(step.node, inputs)

    def _in_mode(self, schema: str, inputs: list[Any]) -> list[Any]:
        flag = flag_of(schema)
        if flag is None or not flag.counts(inputs):
            return inputs
        value = flag.switched(inputs[flag.place], train=self.root.training)
        return [*inputs[: flag.place], value, *inputs[flag.place + 1 :]]

    def _constant(self, step: Step) -> Any:
        (name,) = step.outputs
        return self.constants[name] if name in self.constants else step.node.output().toIValue()

    def _attribute(self, step: Step) -> Any:
        if step.outputs[0] in self.handed:
            return self.values[step.outputs[0]]
        return self.values[step.inputs[0]].read(step.node.s("name"))

    def _assign(self, step: Step) -> None:
        holder, value = (self.values[name] for name in step.inputs)
        holder.write(step.node.s("name"), value)

    def _object(self, step: Step) -> Region:
        return Region(str(step.node.output().type()), _where(step))

    def _enter(self, step: Step) -> Any:
        region = self.values[step.inputs[0]]
        region.enter()
        self.regions.append(region)

    def _exit(self, step: Step) -> Any:
        self.regions.pop().leave()

    def _loop(self, step: Step) -> list[Any]:
        (body,) = step.blocks
        most, going, *carried = (self.values[name] for name in step.inputs)
        for index in range(int(most)):
            self._spend(step)  # a loop may be empty
            if isinstance(going, Tensor):
                raise TraceError(f"a loop ends by the values of a tensor, which no graph can hold ({_where(step)})")
            if not going:
                break
            self.values.update(zip(body.inputs, [index, *carried], strict=True))
            going, *carried = self._block(body)
        return carried

    def _if(self, step: Step) -> list[Any]:
        condition = self.values[step.inputs[0]]
        if not isinstance(condition, Tensor):
            return self._block(step.blocks[0 if condition else 1])
        lasting = [block for block in step.blocks if not block.always_raises]
        if len(lasting) == 1:  # an assertion: a graph goes on
            return self._block(lasting[0])
        return self._branches(condition, step)

    def _branches(self, condition: Tensor, step: Step) -> list[Any]:
        """Both branches as functions of every tensor that they read."""
        if not step.outputs:
            raise TraceError(f"a branch by the values of a tensor changes what it finds ({_where(step)})")
        handed = self._attributes(step.blocks)
        outer = {name: self.values[name] for name in (*outer_names(step.blocks), *handed) if name in self.values}
        leaves, spec = pytree.tree_flatten(outer)
        places = [index for index, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]

        def branch(block: Block) -> Callable[..., tuple[Any, ...]]:
            def run(*given: Any) -> tuple[Any, ...]:
                own = list(leaves)
                for place, tensor in zip(places, given, strict=True):
                    own[place] = tensor
                before = self.values, self.handed
                self.values = {**self.values, **pytree.tree_unflatten(own, spec)}
                self.handed = self.handed | handed
                try:
                    return tuple(_fresh(value, given, step) for value in self._block(block))
                finally:
                    self.values, self.handed = before

            return run

        operands = tuple(leaves[place] for place in places)
        return list(torch.ops.higher_order.cond(condition, *map(branch, step.blocks), operands))

    def _attributes(self, blocks: tuple[Block, ...]) -> frozenset[str]:
        """Names of the tensors that the branches find in modules: read before, so that they can be handed in."""
        found: set[str] = set()
        for step in (step for block in blocks for step in block.all_steps()):
            if step.kind == "prim::GetAttr" and step.inputs[0] in self.values:
                (name,) = step.outputs
                self.values[name] = value = self._attribute(step)
                found |= {name} if isinstance(value, Tensor | list) else set()
        return frozenset(found)

    _control: Mapping[str, Callable[[Interpreter, Step], Any]] = {
        "prim::Constant": _constant,
        "prim::GetAttr": _attribute,
        "prim::SetAttr": _assign,
        "prim::CreateObject": _object,
        "prim::Enter": _enter,
        "prim::Exit": _exit,
        "prim::Loop": _loop,
        "prim::If": _if,
    }


def _fresh(value: Any, given: tuple[Any, ...], step: Step) -> Tensor:
    """A branch's result as a tensor that is none of those handed in."""
    if not isinstance(value, Tensor):
        raise TraceError(f"a branch by the values of a tensor gives a {type(value).__name__} ({_where(step)})")
    return value.clone() if any(value is each for each in given) else value


def _where(step: Step) -> str:
    return str(step.node.sourceRange()).strip().splitlines()[0].strip() or "no line is known"
