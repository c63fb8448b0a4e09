"""Images with less contrast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Generator, Tensor

from graftkit.corruptions.corruption import Form, Scale


@dataclass(frozen=True)
class Contrast:
    """Drawn towards each channel's mean in the image (Hendrycks and Dietterich 2019)."""

    name: ClassVar[str] = "contrast"
    summary: ClassVar[str] = "drawn towards the image's mean"
    unit: ClassVar[str] = "share of the contrast that is left"
    forms: ClassVar[tuple[Form, ...]] = ("image",)
    levels: ClassVar[tuple[float, ...]] = (0.75, 0.5, 0.4, 0.3, 0.15)

    def apply(self, rows: Tensor, level: float, scale: Scale, generator: Generator) -> Tensor:
        mean = rows.mean((-2, -1), keepdim=True)
        return mean + level * (rows - mean)
