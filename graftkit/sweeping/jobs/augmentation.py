"""Trials that graft: runs of `augment`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from graftkit import augmenting
from graftkit.contracts import Observer
from graftkit.request import Request


@dataclass(frozen=True)
class Augmentation:
    """A run of `augment`."""

    name: ClassVar[str] = "augment"

    request: Request

    def identity(self) -> dict[str, Any]:
        """What makes its result."""
        return self.request.identity()

    def check(self) -> None:
        """Nothing is needed."""

    def begin(self, observer: Observer) -> object:
        """Run it."""
        return augmenting.augment(self.request, observer)

    def go_on(self, observer: Observer) -> object:
        """Go on with it."""
        source = self.request.source
        return augmenting.resume(self.request.out, observer, trust=source.trust, allow=source.allow)

    def found(self, told: Mapping[str, Any]) -> dict[str, Any]:
        """What it found, as it stands in its metrics."""
        return {key: told[key] for key in ("name", "metric", "shipped", "baseline", "seeds")}
