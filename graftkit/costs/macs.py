"""The `macs` cost: multiply-adds for one row of data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from graftkit.contracts import Dendrite
from graftkit.costs.built import Counted
from graftkit.costs.cost import COUNTS
from graftkit.model import GraftedModel


@dataclass(frozen=True)
class Macs(Counted):
    """Multiply-adds of Linear and Conv calls and of dendrites, for one row of data."""

    name: ClassVar[str] = "macs"
    unit: ClassVar[str] = "multiply-adds"
    exact: ClassVar[bool] = True
    units: ClassVar[Mapping[str, float]] = COUNTS

    def given(self, model: GraftedModel) -> float:
        return float(model.macs())

    def count(self, dendrite: Dendrite) -> int:
        return dendrite.macs
