"""The `macs` cost: multiply-adds for one row of data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from graftkit.contracts import Dendrite
from graftkit.costs import built
from graftkit.costs.cost import COUNTS, Counts, Prices
from graftkit.model import GraftedModel
from graftkit.plan import Graft


@dataclass(frozen=True)
class Macs:
    """Multiply-adds of Linear and Conv calls and of dendrites, for one row of data."""

    name: ClassVar[str] = "macs"
    unit: ClassVar[str] = "multiply-adds"
    units: ClassVar[Mapping[str, float]] = COUNTS

    def given(self, model: GraftedModel) -> float:
        return float(model.macs())

    def added(self, model: GraftedModel, grafts: Sequence[Graft]) -> float:
        return built.added(model, grafts, _count)

    def prices(self, model: GraftedModel, grafts: Sequence[Graft], counts: Counts) -> Prices:
        return built.prices(model, grafts, counts, _count)


def _count(dendrite: Dendrite) -> int:
    return dendrite.macs
