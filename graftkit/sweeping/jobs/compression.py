"""Trials that make the model smaller: runs of `compress`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from graftkit import compressing, pruning
from graftkit.contracts import Observer
from graftkit.core.records import Measurement
from graftkit.request import Request, identity

_MEASURED = tuple(field.name for field in fields(Measurement))


@dataclass(frozen=True)
class Compression:
    """A run of `compress`. Its control is the pruned network, without dendrites."""

    name: ClassVar[str] = "compress"

    asked: compressing.Asked

    @property
    def request(self) -> Request:
        """Model, data, folder and how to train."""
        return self.asked.request

    def identity(self) -> dict[str, Any]:
        """What makes its result."""
        return identity(self.asked.to_json())

    def check(self) -> None:
        """Raise RuntimeMissingError where torch-pruning is missing."""
        pruning.library()

    def begin(self, observer: Observer) -> object:
        """Run it."""
        return compressing.compress(self.asked, observer)

    def go_on(self, observer: Observer) -> object:
        """Go on with it."""
        source = self.request.source
        return compressing.resume(self.request.out, observer, trust=source.trust, allow=source.allow)

    def found(self, told: Mapping[str, Any]) -> dict[str, Any]:
        """What it found; of sizes that were looked for the smallest within the loss, of each seed that has one."""
        sizes = self._within_loss(told) if self.asked.searches else told["sizes"]
        return {
            "name": told["name"],
            "metric": told["metric"],
            "shipped": told["sizes"][told["shipped"]]["chosen"],
            "baseline": _measurement(told["given"]),
            "seeds": [
                {"grafted": _measurement(size["grafted"] or size["pruned"]), "control": _measurement(size["pruned"])}
                for size in sizes
            ],
            "grew": [size["grafted"] is not None for size in sizes],
        }

    def _within_loss(self, told: Mapping[str, Any]) -> list[dict[str, Any]]:
        given, most = told["given"]["validation"], (self.asked.max_loss or 0.0) / 100
        found: dict[int, dict[str, Any]] = {}
        for seed, size in zip(told["seeds"], told["sizes"], strict=True):
            fits = given - size[size["chosen"]]["validation"] <= most  # as compress itself counts, to the last bit
            if fits and (seed not in found or size["amount"] < found[seed]["amount"]):
                found[seed] = size
        return list(found.values())


def _measurement(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the table as a measurement's JSON."""
    return {name: row[name] for name in _MEASURED}
