"""The `magnitude` importance: torch-pruning's norm of the weights of a group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from graftkit.pruning.graph import Channels, library
from graftkit.pruning.importances.told import told


@dataclass(frozen=True)
class Magnitude:
    """The mean of squared norms over a group's layers, divided by the group's mean (Fang et al. 2023)."""

    name: ClassVar[str] = "magnitude"
    reads_rows: ClassVar[bool] = False

    def of(self, channels: Channels, group: Any) -> Tensor:
        return told(library().importance.GroupMagnitudeImportance(p=2), group)
