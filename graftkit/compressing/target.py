"""How small a model is to become: `parameters=16430`, `macs=40%`, `latency=200us`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

from graftkit.compressing.memory import Memory
from graftkit.core.errors import PlanError
from graftkit.core.table import Table
from graftkit.costs import COSTS, amounts
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
    where = f"--target {text!r}"
    if number.endswith("%"):
        return Target(cost, kept(number, where), 0.0)
    return Target(cost, None, amounts.amount(number, cost.units, name, where))


def kept(text: str, where: str) -> float:
    """The share that `40%` or 0.4 is, at most 1. Raises PlanError."""
    share = amounts.share(text.strip(), where)
    share = amounts.positive(text.strip(), where) if share is None else share
    if share > 1:
        raise PlanError(f"{where}: more than 100% cannot be kept")
    return share
