"""Knows which argument of an operator says "training", by the argument's name: for graphs and for TorchScript alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import fx

_NAMES = frozenset({"train", "training", "use_input_stats"})
_PROBABILITY = "dropout_p"  # of attention: nothing beside it says which mode it is in


@dataclass(frozen=True)
class Flag:
    """Where an operator says which mode it is in.

    Attributes:
        name, place: of the argument.
        statistics: the place of a norm's running mean, without which both modes are the same; None for other operators.
        rate: the place of a recurrent layer's dropout, without which both modes are the same, too.
    """

    name: str
    place: int
    statistics: int | None = None
    rate: int | None = None

    def counts(self, arguments: Sequence[Any]) -> bool:
        """Whether the two modes of the call differ."""
        return self.statistics is None or (len(arguments) > self.statistics and arguments[self.statistics] is not None)

    def is_on(self, value: Any) -> bool:
        """Whether this value means training."""
        if self.name == _PROBABILITY:
            return isinstance(value, int | float) and value > 0
        return value is not False  # to native_dropout, None means training as well

    def switched(self, value: Any, *, train: bool) -> Any:
        """The value for a mode; a probability that evaluation has set to zero is lost."""
        if self.name == _PROBABILITY:
            return value if train else 0.0
        return train


@lru_cache(maxsize=4096)
def flag_of(schema: str) -> Flag | None:
    """The flag of the operator that a schema describes, None where it has none."""
    if schema.startswith("("):  # TorchScript's own operations have no schema
        return None
    parsed = torch._C.parse_schema(schema)
    names = [argument.name for argument in parsed.arguments]
    name = next((name for name in names if name in _NAMES or name == _PROBABILITY), None)
    if name is None:
        return None
    if "norm" not in parsed.name:
        return Flag(name, names.index(name), rate=names.index("dropout") if "dropout" in names else None)
    return Flag(name, names.index(name), names.index("running_mean")) if "running_mean" in names else None


def flag_at(node: fx.Node) -> Flag | None:
    """The flag of a call in a graph, None where it has none or both modes are the same."""
    if not isinstance(node.target, torch._ops.OpOverload) or node.target.namespace != "aten":
        return None
    flag = flag_of(str(node.target._schema))
    return flag if flag is not None and flag.counts(node.args) else None


def argument(node: fx.Node, name: str) -> Any:
    """What a call of a torch operator has for an argument, by its name; None where it has no such argument."""
    assert isinstance(node.target, torch._ops.OpOverload)
    if name in node.kwargs:
        return node.kwargs[name]
    for place, described in enumerate(node.target._schema.arguments):
        if described.name == name:
            return node.args[place] if place < len(node.args) else described.default_value
    return None


def in_training(node: fx.Node) -> bool:
    """Whether a call of a graph behaves as in training."""
    flag = flag_at(node)
    return flag is not None and flag.is_on(argument(node, flag.name))


def switch(node: fx.Node, *, train: bool) -> None:
    """Bring a call of a graph to a mode, in place, where it has a flag."""
    flag = flag_at(node)
    if flag is None:
        return
    value = flag.switched(argument(node, flag.name), train=train)
    if flag.name in node.kwargs:
        node.update_kwarg(flag.name, value)
    elif flag.place < len(node.args):
        node.update_arg(flag.place, value)
    elif value != argument(node, flag.name):
        node.update_kwarg(flag.name, value)


def draws(node: fx.Node) -> bool:
    """Whether a call of a graph draws random numbers."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    flag = flag_at(node)
    if flag is None:
        return torch.Tag.nondeterministic_seeded in node.target.tags
    return flag.statistics is None and in_training(node)
