"""What a grower keeps: the best state so far, how far a phase has come, and what it says after an epoch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from graftkit.plan import GraftPlan


@dataclass(frozen=True)
class Best:
    """The best validated state so far, and what it takes to return to it."""

    validation: float
    plan: GraftPlan
    state: dict[str, Tensor]
    cycle: int  # 0: the model as it was given


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
