"""What a measure of channels must be."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

from torch import Tensor

from graftkit.pruning.graph import Channels


class Importance(Protocol):
    """Says what channels are worth. A kind is a frozen dataclass without fields."""

    name: ClassVar[str]
    reads_rows: ClassVar[bool]  # whether it reads gradients of the loss on a batch, or weights alone

    def of(self, channels: Channels, group: Any) -> Tensor:
        """What each channel of a group's root is worth, [channels], not below zero."""
