"""Salt and pepper on images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from graftkit.corruptions.corruption import Form, Scale


@dataclass(frozen=True)
class ImpulseNoise:
    """Some numbers become the darkest or the brightest there is (Hendrycks and Dietterich 2019)."""

    name: ClassVar[str] = "impulse-noise"
    summary: ClassVar[str] = "some numbers become the least or the largest"
    unit: ClassVar[str] = "share of the numbers"
    forms: ClassVar[tuple[Form, ...]] = ("image",)
    levels: ClassVar[tuple[float, ...]] = (0.01, 0.03, 0.06, 0.10, 0.17)

    def apply(self, rows: Tensor, level: float, scale: Scale, generator: Generator) -> Tensor:
        drawn = torch.rand(rows.shape, generator=generator).to(rows.device)
        found = torch.where(drawn < level / 2, scale.low.to(rows), rows)
        return torch.where(drawn > 1 - level / 2, scale.high.to(rows), found)
