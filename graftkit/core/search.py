"""What a sweep searches: for each option a list of values or a range, read from text and asked of a trial."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from graftkit.core.errors import PlanError

_DECADE = 10  # a range whose ends are so many times apart is searched by its logarithm


class Asked(Protocol):
    """What a dimension needs of a trial of Optuna's."""

    def suggest_categorical(self, name: str, choices: list[str], /) -> str: ...
    def suggest_int(self, name: str, low: int, high: int, /, *, log: bool) -> int: ...
    def suggest_float(self, name: str, low: float, high: float, /, *, log: bool) -> float: ...


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several texts."""

    values: tuple[str, ...]

    def ask(self, trial: Asked, name: str) -> str:
        """What the trial takes."""
        return trial.suggest_categorical(name, list(self.values))

    def samples(self) -> tuple[str, ...]:
        """Values to try whether they can be read at all."""
        return self.values


@dataclass(frozen=True, slots=True)
class Range:
    """A number from one end to the other, both included; whole where both ends are."""

    low: float
    high: float
    whole: bool

    @property
    def log(self) -> bool:
        """Whether it is searched by its logarithm."""
        return self.low > 0 and self.high >= _DECADE * self.low

    def ask(self, trial: Asked, name: str) -> str:
        """What the trial takes."""
        if self.whole:
            return str(trial.suggest_int(name, int(self.low), int(self.high), log=self.log))
        return f"{trial.suggest_float(name, self.low, self.high, log=self.log):.4g}"

    def samples(self) -> tuple[str, ...]:
        """Values to try whether they can be read at all: both ends, and one between."""
        if self.whole:
            return (f"{self.low:.0f}", f"{self.high:.0f}")
        return tuple(f"{self.low + share * (self.high - self.low):.4g}" for share in (0, 1, 0.382))


Dimension = Choice | Range
Space = Mapping[str, Dimension]


def read_dimension(name: str, text: str) -> Dimension:
    """`a|b|c` is a choice of texts, `1..4` or `1e-3..1e-2` a range. Raises PlanError."""
    ends = [end.strip() for end in text.split("..")]
    low, *rest = (_number(end) for end in ends)
    if low is not None and len(rest) == 1 and rest[0] is not None:
        if not low < rest[0]:
            raise PlanError(f"--search {name}={text}: the range ends before it begins")
        return Range(low, rest[0], whole=all(re.fullmatch(r"[+-]?\d+", end) for end in ends))
    values = tuple(value.strip() for value in text.split("|"))
    if not all(values) or len(set(values)) < 2:
        raise PlanError(
            f"--search {name}={text}: give several different values, as {name}=a|b, or a range, as {name}=1..4"
        )
    return Choice(values)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
