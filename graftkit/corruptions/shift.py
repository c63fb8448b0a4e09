"""Series that come earlier or later."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from graftkit.corruptions.corruption import Form, Scale


@dataclass(frozen=True)
class Shift:
    """Each row moved one way or the other along time, by a step at least; its first or last value fills the gap."""

    name: ClassVar[str] = "shift"
    summary: ClassVar[str] = "earlier or later in time"
    unit: ClassVar[str] = "share of the length"
    forms: ClassVar[tuple[Form, ...]] = ("series",)
    levels: ClassVar[tuple[float, ...]] = (0.05, 0.10, 0.15, 0.20, 0.25)

    def apply(self, rows: Tensor, level: float, scale: Scale, generator: Generator) -> Tensor:
        length = rows.shape[scale.time]
        steps = max(1, round(level * length))
        later = torch.rand(len(rows), generator=generator).to(rows.device) < 0.5
        places = torch.arange(length, device=rows.device)
        back, on = (rows.index_select(scale.time, (places + way).clamp(0, length - 1)) for way in (-steps, steps))
        return torch.where(later.view(-1, *(1 for _ in rows.shape[1:])), back, on)
