"""The `taylor` importance: torch-pruning's first-order measure, weight by weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from graftkit.pruning.graph import Channels, library
from graftkit.pruning.importances.told import told


@dataclass(frozen=True)
class Taylor:
    """The sum of |weight x gradient| over a channel's weights, divided by the group's mean."""

    name: ClassVar[str] = "taylor"
    reads_rows: ClassVar[bool] = True

    def of(self, channels: Channels, group: Any) -> Tensor:
        return told(library().importance.GroupTaylorImportance(), group)
