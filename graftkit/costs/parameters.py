"""The `parameters` cost: numbers in all parameters."""

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
class Parameters:
    """Numbers in all parameters, each counted once."""

    name: ClassVar[str] = "parameters"
    unit: ClassVar[str] = "parameters"
    units: ClassVar[Mapping[str, float]] = COUNTS

    def given(self, model: GraftedModel) -> float:
        return float(model.parameter_count())

    def added(self, model: GraftedModel, grafts: Sequence[Graft]) -> float:
        return built.added(model, grafts, _count)

    def prices(self, model: GraftedModel, grafts: Sequence[Graft], counts: Counts) -> Prices:
        return built.prices(model, grafts, counts, _count)


def _count(dendrite: Dendrite) -> int:
    return sum(p.numel() for p in dendrite.parameters())
