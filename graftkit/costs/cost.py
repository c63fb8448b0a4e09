"""What a cost must be: how much a model has of it, and how much dendrites add."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol

from graftkit.model import GraftedModel
from graftkit.plan import Graft

Counts = Sequence[Sequence[int]]  # for each graft numbers of neurons, rising, the last for all of them
Prices = list[list[float]]  # for each graft and each of its numbers what it adds
COUNTS: Mapping[str, float] = {"": 1, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9}


class Cost(Protocol):
    """Something that a budget limits. A kind is a frozen dataclass without fields."""

    name: ClassVar[str]
    unit: ClassVar[str]  # what its numbers are in, as words say it
    exact: ClassVar[bool]  # whether the same is found the next time
    units: ClassVar[Mapping[str, float]]  # endings of a number, and what each is worth in `unit`

    def given(self, model: GraftedModel) -> float:
        """What the model has as it stands."""

    def added(self, model: GraftedModel, grafts: Sequence[Graft]) -> float:
        """What these grafts add to the model as it stands, all together; the model is left as it was."""

    def prices(self, model: GraftedModel, grafts: Sequence[Graft], counts: Counts) -> Prices:
        """For each graft what it adds where it serves so many neurons.

        Args:
            model: without the grafts.
            grafts: all that may be grafted; those before a graft at its site count as there.
            counts: how many neurons each may serve.
        """
