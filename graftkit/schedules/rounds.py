"""The `rounds` schedule: first the network as it is, then a round of so many epochs with each growth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from graftkit.contracts import Phase
from graftkit.core.errors import PlanError
from graftkit.core.records import PhaseRecord


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """Rounds of fixed length; too many in a row that bring nothing end growth.

    Attributes:
        epochs: of a round.
        dendrites: how many times to grow at most.
        tries: how many growths in a row may bring nothing.
    """

    name: ClassVar[str] = "rounds"

    epochs: int = 20
    dendrites: int = 3
    tries: int = 1

    def __post_init__(self) -> None:
        for option, least in self._least().items():
            if not getattr(self, option) >= least:
                raise PlanError(f"{option} must be {least} or more, not {getattr(self, option)}")

    def _least(self) -> dict[str, int]:
        return {"epochs": 1, "dendrites": 0, "tries": 1}

    def next(self, history: Sequence[PhaseRecord]) -> Phase | None:
        if history and self.why(history):
            return None
        return Phase("neuron", len(history), self.epochs, grow=bool(history))

    def over(self, phase: Phase, scores: Sequence[float]) -> bool:
        return False

    def why(self, history: Sequence[PhaseRecord]) -> str:
        last = history[-1]
        if last.ends_growth:
            return last.note
        grown = history[1:]
        failed = [record.cycle for record in grown[-self.tries :] if not record.improved]
        if len(failed) == self.tries:
            which = f"cycle {failed[0]}" if self.tries == 1 else f"cycles {failed[0]} to {failed[-1]}"
            return f"{which} did not improve validation"
        if len(grown) < self.dendrites:
            return ""
        return f"dendrites were grafted {self.dendrites} time{'s' * (self.dendrites != 1)}, as often as they may be"
