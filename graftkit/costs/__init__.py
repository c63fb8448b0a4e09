"""What a budget can be spent in: the table, and how `parameters=+10%` becomes a budget."""

from __future__ import annotations

from dataclasses import dataclass

from graftkit.core.errors import PlanError
from graftkit.core.table import Table
from graftkit.costs import amounts
from graftkit.costs.cost import Cost
from graftkit.costs.latency import Latency
from graftkit.costs.macs import Macs
from graftkit.costs.parameters import Parameters
from graftkit.costs.size import Size

COSTS: Table[type[Cost]] = Table(
    "kind of budget", {kind.name: kind for kind in (Parameters, Macs, Size, Latency)}, PlanError
)


@dataclass(frozen=True)
class Budget:
    """How much dendrites may add, and in what.

    Attributes:
        cost: what is counted.
        share: of what the model as given has, 0.1 for 10% more.
        amount: in the cost's unit, where there is no share.
    """

    cost: Cost
    share: float | None
    amount: float

    def allowance(self, given: float) -> float:
        """What may be added to a model that has `given`, in the cost's unit."""
        return self.amount if self.share is None else given * self.share


def parse_budget(text: str) -> Budget:
    """A budget from `parameters=+10%`, or `macs=+200k`, `size=+4KB`, `latency=+50us`. Raises PlanError."""
    if text.count("=") > 1:
        raise PlanError(f"--budget {text!r}: a budget is in one of {', '.join(COSTS)}; write one alone")
    name, equals, rest = text.partition("=")
    if not equals:
        raise PlanError(f"--budget {text!r}: write WHAT=+HOW MUCH, as in parameters=+10% or latency=+50us")
    cost = COSTS.find(name.strip())()
    number = rest.strip().removeprefix("+")
    if not rest.strip().startswith("+"):
        number = number.lstrip("-")
        example = number if any(digit in number for digit in "123456789") else "10%"
        raise PlanError(f"--budget {text!r}: a budget is what may be added; write {name}=+{example}")
    where = f"--budget {text!r}"
    found = amounts.share(number, where)
    if found is not None:
        return Budget(cost, found, 0.0)
    return Budget(cost, None, amounts.amount(number, cost.units, name, where))


__all__ = ["COSTS", "Budget", "Cost", "parse_budget"]
