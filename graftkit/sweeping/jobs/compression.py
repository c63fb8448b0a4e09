"""Trials that make the model smaller: runs of `compress`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from graftkit import compressing
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

    def begin(self, observer: Observer) -> object:
        """Run it."""
        return compressing.compress(self.asked, observer)

    def go_on(self, observer: Observer) -> object:
        """Go on with it."""
        source = self.request.source
        return compressing.resume(self.request.out, observer, trust=source.trust, allow=source.allow)

    def found(self, told: Mapping[str, Any]) -> dict[str, Any]:
        """What it found: of each seed, or of the one size that ships where sizes were looked for."""
        ships = told["sizes"][told["shipped"]]
        sizes = [ships] if self.asked.searches else told["sizes"]
        rows = [{"grafted": size["grafted"], "pruned": size["pruned"]} for size in sizes]
        return {
            "name": told["name"],
            "metric": told["metric"],
            "shipped": ships["chosen"],
            "baseline": _measurement(told["given"]),
            "seeds": [{"grafted": _measurement(r["grafted"]), "control": _measurement(r["pruned"])} for r in rows],
            "chosen": [_measurement(row[size["chosen"]]) for row, size in zip(rows, sizes, strict=True)],
        }


def _measurement(row: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A row of the table as a measurement's JSON."""
    return None if row is None else {name: row[name] for name in _MEASURED}
