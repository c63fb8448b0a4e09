"""What a budget was spent on: what each neuron's dendrite was worth in a trial, what it cost, and what was kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from graftkit.core.options import Options


@dataclass(frozen=True, slots=True)
class ValueRecord:
    """One dendrite of the trial: what it was worth to each neuron of its site, and to which it stays.

    Attributes:
        site, kind, options: the dendrite.
        worth: for each neuron the loss that it took away on rows not trained on, mean over rows.
        error: for each neuron the standard error of that mean.
        price: what it costs where it serves all neurons, in the budget's unit.
        sure: for each neuron what of that is sure, other neurons' worths considered.
        kept: the neurons that it serves from then on.
        spent: what it would cost then, all that was tried before it at its site being there.
    """

    site: str
    kind: str
    options: Options
    worth: tuple[float, ...]
    error: tuple[float, ...]
    sure: tuple[float, ...]
    price: float
    kept: tuple[int, ...] = ()
    spent: float = 0.0

    @property
    def paying(self) -> tuple[int, ...]:
        """The neurons to which it is surely worth something, the most worth first."""
        found = [n for n, sure in enumerate(self.sure) if sure > 0]
        return tuple(sorted(found, key=lambda n: -self.sure[n]))

    @property
    def total(self) -> float:
        """What it is worth to all neurons together."""
        return sum(self.worth)


@dataclass(frozen=True, slots=True)
class Spending:
    """How a budget was spent.

    Attributes:
        cost: what was counted: "parameters", "macs", "size" or "latency".
        unit: of all its numbers.
        given: what the model as given has.
        allowance: what might be added.
        spent: what was added.
        epochs: of the trial; the control gets them, too.
        values: what the trial found, all dendrites in the order in which they were tried.
    """

    cost: str
    unit: str
    given: float
    allowance: float
    spent: float
    epochs: int
    values: tuple[ValueRecord, ...]

    def to_json(self) -> dict[str, Any]:
        """JSON-able form; the inverse of `from_json`."""
        value = asdict(self)
        for record in value["values"]:
            record["options"] = dict(record["options"])
        return value

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Spending:
        """Read what `to_json` wrote. Raises KeyError, TypeError or AttributeError for anything else."""
        lists = ("worth", "error", "sure", "kept")
        values = tuple(
            ValueRecord(
                **{
                    **record,
                    **{name: tuple(record[name]) for name in lists},
                    "options": tuple(record["options"].items()),
                }
            )
            for record in value["values"]
        )
        return Spending(**{**value, "values": values})
