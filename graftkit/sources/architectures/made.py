"""What an architecture is asked for, and what it gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from torch import nn

from graftkit.sources.weights import Weights


@dataclass(frozen=True, eq=False)
class Order:
    """An architecture as the user named it.

    Attributes:
        spec: "package.module:factory", "timm:NAME" or "hf:FOLDER".
        arguments: what it is to be made with.
        weights: what to fill it with; None where it is to be taken as it is made.
        trust: run code that a folder brings along.
    """

    spec: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    weights: Weights | None = None
    trust: bool = False

    @property
    def place(self) -> str:
        """What stands behind the colon."""
        return self.spec.partition(":")[2]


@dataclass(frozen=True, eq=False)
class Made:
    """A module, filled.

    Attributes:
        model: the module.
        name: what to call it.
        weights: what it was filled with, which may be the architecture's own; None for the numbers it was made with.
        warnings: what a user has to know, one line each.
    """

    model: nn.Module
    name: str
    weights: Weights | None = None
    warnings: tuple[str, ...] = ()


class Architecture(Protocol):
    """A way to name an architecture. A kind is a frozen dataclass without fields."""

    name: ClassVar[str]

    def recognises(self, spec: str) -> bool:
        """Whether the text names such an architecture."""

    def make(self, order: Order) -> Made:
        """The module. Raises SourceError, or RuntimeMissingError where a package is not installed."""
