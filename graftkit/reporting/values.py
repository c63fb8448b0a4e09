"""What dendrites were worth in a trial and what a budget went to: a sentence and a table."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Group, RenderableType

from graftkit.core.values import Spending, ValueRecord
from graftkit.reporting import wording
from graftkit.reporting.tables import Line, Lines

COLUMNS = ("site", "dendrite", "worth", "pays", "price", "kept", "spent")


def spending_words(spending: Spending) -> str:
    """One sentence on what a budget went to."""
    kept = sum(len(value.kept) for value in spending.values)
    tried = sum(len(value.worth) for value in spending.values)
    spent, limit = wording.amount(spending.unit, spending.spent, unit_too=False), spending.allowance
    return (
        f"Budget: {spent} of {wording.amount(spending.unit, limit)} spent on {kept} of the {tried} dendrites"
        f" (one a neuron) that a trial of {spending.epochs} epoch{'s' * (spending.epochs != 1)} valued."
    )


def value_table(spending: Spending) -> RenderableType:
    """Every kind of dendrite at every site, those that pay most for their price first."""
    lines = [Line(COLUMNS, style="bold")]
    for value in ranked(spending):
        lines.append(Line(cells(spending, value), style="green" if value.kept else ""))
    notes = [
        "",
        f"worth: the loss that it takes away on validation rows, in thousandths, all neurons together, after"
        f" {spending.epochs} epochs; pays: neurons to which it surely is worth something",
        f"price: for all neurons, in {spending.unit}; kept and spent: what the budget went to",
        spending_words(spending),
    ]
    return Group(Lines(tuple(lines), frozenset({0, 1})), *notes)


def ranked(spending: Spending) -> list[ValueRecord]:
    """The dendrites by what they are worth to the neurons that they pay for, against their price."""
    return sorted(spending.values, key=lambda v: -sum(v.sure[n] for n in v.paying) / max(v.price, 1e-9))


def cells(spending: Spending, value: ValueRecord) -> tuple[str, ...]:
    """A dendrite's row, a cell for each of `COLUMNS`."""
    count = len(value.worth)
    return (
        value.site,
        f"{value.kind} {_options(value.options)}".strip(),
        f"{1000 * value.total:+.2f}",
        f"{len(value.paying)}/{count}",
        wording.amount(spending.unit, value.price, unit_too=False),
        f"{len(value.kept)}/{count}" if value.kept else "-",
        wording.amount(spending.unit, value.spent, unit_too=False) if value.kept else "-",
    )


def _options(options: Iterable[tuple[str, object]]) -> str:
    return ",".join(f"{name}={value}" for name, value in options if name != "activation" or value != "tanh")
