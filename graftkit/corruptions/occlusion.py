"""Images with something in front."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from graftkit.corruptions.corruption import Form, Scale


@dataclass(frozen=True)
class Occlusion:
    """A square somewhere in the image is as grey as images are on average (after DeVries and Taylor 2017)."""

    name: ClassVar[str] = "occlusion"
    summary: ClassVar[str] = "a square is covered"
    unit: ClassVar[str] = "side, as a share of the shorter side"
    forms: ClassVar[tuple[Form, ...]] = ("image",)
    levels: ClassVar[tuple[float, ...]] = (0.125, 0.25, 0.375, 0.5, 0.625)

    def apply(self, rows: Tensor, level: float, scale: Scale, generator: Generator) -> Tensor:
        height, width = rows.shape[-2:]
        side = max(1, round(level * min(height, width)))
        inside = [_stretch(len(rows), size, side, generator) for size in (height, width)]
        covered = inside[0].unsqueeze(-1) & inside[1].unsqueeze(-2)  # [rows, height, width]
        covered = covered.view(len(rows), *(1 for _ in rows.shape[1:-2]), height, width).to(rows.device)
        return torch.where(covered, scale.mean.to(rows), rows)


def _stretch(rows: int, size: int, side: int, generator: Generator) -> Tensor:
    """Which places of each row lie within a stretch of `side`: [rows, size]."""
    start = torch.randint(0, size - side + 1, (rows, 1), generator=generator)
    places = torch.arange(size)
    return (places >= start) & (places < start + side)
