"""Normal noise on images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from graftkit.corruptions.corruption import Form, Scale


@dataclass(frozen=True)
class GaussianNoise:
    """Normal noise, cut off at the darkest and the brightest there is (Hendrycks and Dietterich 2019)."""

    name: ClassVar[str] = "gaussian-noise"
    summary: ClassVar[str] = "normal noise on every number"
    unit: ClassVar[str] = "standard deviation, in the images' range"
    forms: ClassVar[tuple[Form, ...]] = ("image",)
    levels: ClassVar[tuple[float, ...]] = (0.04, 0.08, 0.12, 0.18, 0.26)

    def apply(self, rows: Tensor, level: float, scale: Scale, generator: Generator) -> Tensor:
        noise = torch.randn(rows.shape, generator=generator).to(rows)
        return (rows + level * (scale.high - scale.low) * noise).clamp(scale.low, scale.high)
