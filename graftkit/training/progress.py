"""How far a phase of growth has come, and what a grower says after an epoch."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class Progress:
    """How far a phase has come."""

    epochs: int = 0
    rows: int = 0  # learned from in this epoch
    total: float = 0.0  # their objective, summed
    best: float = -math.inf
    improved: bool = False


@dataclass(frozen=True)
class Step:
    """What `Grower.step` says after an epoch."""

    finished: bool
    phase_ended: bool
    improved: bool  # whether this epoch is the best of all so far
