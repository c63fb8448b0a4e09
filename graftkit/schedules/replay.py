"""The `replay` schedule: the phases another arm went through, without growth, as a control."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from graftkit.contracts import Phase
from graftkit.core.records import PhaseRecord


@dataclass(frozen=True)
class Replay:
    """As many phases and epochs as another arm had, all of them neuron phases, nothing grafted.

    Attributes:
        lengths: epochs of each phase, in order.
    """

    name: ClassVar[str] = "replay"

    lengths: tuple[int, ...]

    def next(self, history: Sequence[PhaseRecord]) -> Phase | None:
        done = len(history)
        if done >= len(self.lengths) or (history and history[-1].ends_growth):
            return None
        return Phase("neuron", done + 1, self.lengths[done], grow=False)

    def over(self, phase: Phase, scores: Sequence[float]) -> bool:
        return False

    def why(self, history: Sequence[PhaseRecord]) -> str:
        return history[-1].note if history and history[-1].ends_growth else "as many epochs as the grafted arm"
