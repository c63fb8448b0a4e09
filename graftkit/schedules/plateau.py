"""The `plateau` schedule: dendrites come where validation no longer rises."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from graftkit.contracts import Phase
from graftkit.schedules.rounds import Rounds


@dataclass(frozen=True, kw_only=True)
class Plateau(Rounds):
    """Rounds that end where the score has not risen for a while.

    Attributes:
        patience: epochs without a better score before a round ends.
        lookback: how many epochs' mean is compared, against noise.
        relative, absolute: by how much a score has to be better to count: this share of the best so far, and this much.
        epochs: of a round at most.
    """

    name: ClassVar[str] = "plateau"

    patience: int = 10
    lookback: int = 1
    relative: float = 0.0
    absolute: float = 0.0
    epochs: int = 1000

    def _least(self) -> dict[str, int]:
        return {**super()._least(), "patience": 1, "lookback": 1, "relative": 0, "absolute": 0}

    def over(self, phase: Phase, scores: Sequence[float]) -> bool:
        best, since = -math.inf, 0
        for end in range(1, len(scores) + 1):
            last = scores[max(0, end - self.lookback) : end]
            mean = sum(last) / len(last)
            better = not math.isfinite(best) or mean > best + self.absolute + self.relative * abs(best)
            best, since = (mean, 0) if better else (best, since + 1)
        return since >= self.patience
