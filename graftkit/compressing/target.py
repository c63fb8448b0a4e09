"""How small a model is to become: `parameters=16430`, `macs=40%`, `latency=200us`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

from graftkit.compressing.memory import Memory
from graftkit.core.errors import PlanError
from graftkit.core.table import Table
from graftkit.costs import COSTS
from graftkit.model import GraftedModel
from graftkit.pruning import Unit


class Amount(Protocol):
    """Something that a target is in: a cost, or what can be measured of a whole model alone."""

    name: ClassVar[str]
    unit: ClassVar[str]
    units: ClassVar[Mapping[str, float]]

    def given(self, model: GraftedModel) -> float:
        """What the model has as it stands."""


TARGETS: Table[type[Amount]] = Table("target", {**COSTS, Memory.name: Memory}, PlanError)

# What pruning counts on the way to a cost that has to be measured.
_COUNTED: Mapping[str, Unit] = {"parameters": "parameters", "size": "parameters"}


@dataclass(frozen=True)
class Target:
    """A size in a cost.

    Attributes:
        cost: what is counted or measured.
        share: of what the model as given has, 0.4 for 40%.
        amount: in the cost's unit, where there is no share.
    """

    cost: Amount
    share: float | None
    amount: float

    @property
    def counted(self) -> Unit:
        """What pruning counts for it."""
        return _COUNTED.get(self.cost.name, "macs")

    def of(self, given: float) -> float:
        """In the cost's unit, for a model that has `given`. Raises PlanError where that is no smaller."""
        amount = self.amount if self.share is None else given * self.share
        if amount >= given and self.share != 1:
            raise PlanError(
                f"the model has {given:,.0f} {self.cost.unit}, so {amount:,.0f} would be no smaller; ask for less"
            )
        return amount


def parse_target(text: str) -> Target:
    """A target from `parameters=40%` or `latency=200us`. Raises PlanError."""
    name, equals, rest = text.partition("=")
    if not equals:
        raise PlanError(f"--target {text!r}: write WHAT=HOW MUCH, as in parameters=40% or latency=200us")
    cost = TARGETS.find(name.strip())()
    number = rest.strip()
    if number.startswith("+"):
        raise PlanError(f"--target {text!r}: a target is what is left; write {name}={number.removeprefix('+')}")
    if number.endswith("%"):
        return Target(cost, kept(number, f"--target {text!r}"), 0.0)
    digits = number.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    unit = number[len(digits) :]
    if unit not in cost.units:
        offered = ", ".join(f"{each or 'none'}" for each in cost.units)
        raise PlanError(f"--target {text!r}: {name} has the units {offered}, or write a share such as 40%")
    return Target(cost, None, _number(digits, f"--target {text!r}") * cost.units[unit])


def kept(text: str, where: str) -> float:
    """The share that `40%` is, above 0 and at most 1. Raises PlanError."""
    share = _number(text.strip().removesuffix("%"), where) / (100 if text.strip().endswith("%") else 1)
    if share > 1:
        raise PlanError(f"{where}: more than 100% cannot be kept")
    return share


def _number(text: str, where: str) -> float:
    try:
        value = float(text.replace(",", "").replace("_", ""))
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise PlanError(f"{where}: {text!r} is no number above zero")
    return value
