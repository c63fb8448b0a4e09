"""What `evaluate` was asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from graftkit.core.errors import DataError
from graftkit.corruptions import Form
from graftkit.costs import amounts

Part = Literal["corruptions", "few"]


@dataclass(frozen=True)
class Asked:
    """What `evaluate` was asked to do.

    Attributes:
        run: its folder.
        parts: what is measured: corrupted inputs, few samples, or both.
        shares: of the training rows, for few samples.
        seeds: how often each share is drawn and trained.
        epochs: of the first training with all rows; None for as many as the run's phases have together.
        start: whether few samples are learned from fresh weights or from the given ones; "auto" takes the given ones
            where dendrites alone learn.
        form: what inputs are; None as their shape says.
        time: the dimension along which series go on, rows being 0; None for the longest.
        seed: the first one, also of what corrupts.
        device: as torch names it.
    """

    run: Path
    parts: tuple[Part, ...] = ("corruptions", "few")
    shares: tuple[float, ...] = (0.1, 0.25, 0.5, 1.0)
    seeds: int = 3
    epochs: int | None = None
    start: Literal["auto", "fresh", "given"] = "auto"
    form: Form | None = None
    time: int | None = None
    seed: int = 0
    device: str = "cpu"

    def to_json(self, part: Part) -> dict[str, Any]:
        """What the numbers of a part depend on, JSON-able, by its name."""
        plain = {"seed": self.seed, "device": self.device}
        if part == "corruptions":
            return {part: {**plain, "form": self.form, "time": self.time}}
        return {part: {**plain, "shares": list(self.shares), "seeds": self.seeds, **self.learning()}}

    def learning(self) -> dict[str, Any]:
        """What the numbers of one share and seed depend on, JSON-able."""
        return {"epochs": self.epochs, "start": self.start, "device": self.device}


def parse_shares(text: str) -> tuple[float, ...]:
    """Shares such as `10%,50%,100%`, the smallest first and each once. Raises DataError."""
    found = set()
    for word in text.split(","):
        part = amounts.share(word.strip(), f"--shares {text!r}")
        if part is None or part > 1:
            raise DataError(f"--shares {text!r}: write shares of the training rows up to 100%, as 10%,25%,50%,100%")
        found.add(part)
    return tuple(sorted(found))
