"""The `cycles` schedule: one dendrite a cycle, until validation no longer improves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from graftkit.contracts import Phase
from graftkit.core.errors import PlanError
from graftkit.core.records import PhaseRecord


@dataclass(frozen=True)
class Cycles:
    """Cycles of fixed length; the first that does not beat the best so far is the last.

    Attributes:
        epochs: epochs of each phase.
        cycles: how many cycles at most.
        phases: the phases of one cycle, in order, as the learning rule names them.
    """

    name: ClassVar[str] = "cycles"

    epochs: int
    cycles: int
    phases: tuple[Literal["neuron", "dendrite"], ...] = ("neuron",)

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.cycles < 1:
            raise PlanError(f"epochs and cycles must be 1 or more, not {self.epochs} and {self.cycles}")

    def next(self, history: Sequence[PhaseRecord]) -> Phase | None:
        if not history:
            return Phase(self.phases[0], 1, self.epochs, grow=True)
        if self.why(history):
            return None
        last = history[-1]
        step = self.phases.index(last.phase) + 1
        if step < len(self.phases):
            return Phase(self.phases[step], last.cycle, self.epochs, grow=False)
        return Phase(self.phases[0], last.cycle + 1, self.epochs, grow=True)

    def over(self, phase: Phase, scores: Sequence[float]) -> bool:
        return False

    def why(self, history: Sequence[PhaseRecord]) -> str:
        last = history[-1]
        if last.ends_growth:
            return last.note
        if last.phase != self.phases[-1]:
            return ""
        if not last.improved:
            return f"cycle {last.cycle} did not improve validation"
        done = "the one cycle was done" if self.cycles == 1 else f"all {self.cycles} cycles were done"
        return done if last.cycle >= self.cycles else ""
