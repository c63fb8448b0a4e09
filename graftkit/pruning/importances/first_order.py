"""The `first-order` importance: by how much the loss would change if a channel's weights were zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from graftkit.pruning.graph import Channels, Part


@dataclass(frozen=True)
class FirstOrder:
    """To first order, on a batch of rows.

    Each tensor that has the channel says the sum of weight x gradient over its part of it; the channel has the sum of
    their absolute values (Molchanov et al. 2019, its eq. 8 with the sign kept within a tensor).
    """

    name: ClassVar[str] = "first-order"
    reads_rows: ClassVar[bool] = True

    def of(self, channels: Channels, group: Any) -> Tensor:
        parts = [*channels.parts(group)]
        found = torch.zeros(1 + max((max(part.roots) for part in parts), default=0))
        for part in parts:
            if part.tensor.grad is not None:
                found.index_add_(0, torch.tensor(part.roots), _changes(part))
        return found


def _changes(part: Part) -> Tensor:
    """Of each number of a part, [numbers]."""
    product = (part.tensor.detach() * part.tensor.grad).movedim(part.dimension, 0)  # type: ignore[operator]
    sums = product.flatten(1).sum(1) if product.ndim > 1 else product
    return sums[torch.tensor(part.numbers, device=sums.device)].abs().float().cpu()
