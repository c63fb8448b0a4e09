"""The `when` schedule: a function of the scores says when the next dendrites come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from graftkit.contracts import Phase
from graftkit.schedules.rounds import Rounds


@dataclass(frozen=True, kw_only=True)
class When(Rounds):
    """Rounds that end when a function says so.

    Attributes:
        grow: given the validation scores of the round so far, one an epoch, whether it is over.
        epochs: of a round at most.
    """

    name: ClassVar[str] = "when"

    grow: Callable[[Sequence[float]], bool]
    epochs: int = 1000

    def over(self, phase: Phase, scores: Sequence[float]) -> bool:
        return bool(self.grow(tuple(scores)))
