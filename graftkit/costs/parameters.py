"""The `parameters` cost: numbers in all parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from graftkit.contracts import Dendrite
from graftkit.costs.built import Counted
from graftkit.costs.cost import COUNTS
from graftkit.model import GraftedModel


@dataclass(frozen=True)
class Parameters(Counted):
    """Numbers in all parameters, each counted once."""

    name: ClassVar[str] = "parameters"
    unit: ClassVar[str] = "parameters"
    exact: ClassVar[bool] = True
    units: ClassVar[Mapping[str, float]] = COUNTS

    def given(self, model: GraftedModel) -> float:
        return float(model.parameter_count())

    def count(self, dendrite: Dendrite) -> int:
        return sum(p.numel() for p in dendrite.parameters())
