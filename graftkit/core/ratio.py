"""How much longer one thing takes than another, with what noise leaves of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ratio:
    """From measurements in pairs.

    Attributes:
        median: of the pairs' ratios.
        low, high: between which the median of ever more pairs lies, in 99 of 100 cases where there are 8 pairs or more.
    """

    median: float
    low: float
    high: float

    @property
    def certain(self) -> bool:
        """Whether the difference is larger than the noise of these measurements."""
        return not self.low <= 1 <= self.high
