"""How far a phase of growth has come, and what a grower says after an epoch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass
class Progress:
    """How far a phase has come."""

    epochs: int = 0
    scores: list[float] = field(default_factory=list)  # validation, an epoch
    best: float = -math.inf
    improved: bool = False
    note: str = ""


@dataclass(frozen=True)
class Step:
    """What `Grower.step` says after an epoch."""

    finished: bool
    phase_ended: bool
    improved: bool  # whether this epoch is the best of all so far
    grew: bool = False  # whether dendrites were grafted after it
