"""The `taylor` importance: torch-pruning's first-order measure, weight by weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from graftkit.pruning.graph import Channels, library
from graftkit.pruning.importances.told import told


@dataclass(frozen=True)
class Taylor:
    """The sum of |weight x gradient| over a channel's weights, divided by the group's mean."""

    name: ClassVar[str] = "taylor"
    reads_rows: ClassVar[bool] = True

    def of(self, channels: Channels, group: Any) -> Tensor:
        for part in channels.parts(group):  # a parameter that the loss does not reach has none
            if part.tensor.grad is None:
                part.tensor.grad = torch.zeros_like(part.tensor)
        return told(library().importance.GroupTaylorImportance(), group)
