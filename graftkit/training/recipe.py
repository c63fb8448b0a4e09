"""How a phase is optimised, and which of its epochs may leave the state that is kept."""

from __future__ import annotations

import math
from dataclasses import dataclass

from graftkit.core.errors import TrainingError


@dataclass(frozen=True)
class Recipe:
    """How each phase is optimised: AdamW anew, linear warm-up, then a half cosine to zero.

    Attributes:
        learning_rate: at the end of the warm-up.
        weight_decay: AdamW's (Loshchilov and Hutter 2019).
        warmup: share of a phase's steps.
        settled: share of a phase's epochs, at its end, whose states may be kept: with few validation rows the best of
            all epochs is one that was lucky while the learning rate was high (docs/results.md).
        sparsity: weight of the sum of absolute scales of normalisations and strengths of dendrites in the loss, which
            draws channels that do little to zero (Liu et al. 2017); 0 for none.
        shrink: what the network's weights are multiplied by before each phase; 1 leaves them as they are.
    """

    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    warmup: float = 0.05
    settled: float = 0.25
    sparsity: float = 0.0
    shrink: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate < math.inf:
            raise TrainingError(f"learning_rate is {self.learning_rate}; it has to be above zero")

    def rate(self, step: int, steps: int) -> float:
        """The share of the learning rate at a step of `steps`."""
        rise = max(1, round(steps * self.warmup))
        if step < rise:
            return (step + 1) / rise
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rise) / max(1, steps - rise))))
