"""Images out of focus."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor
from torch.nn import functional

from graftkit.corruptions.corruption import Form, Scale

_SIDE = 32  # of the images that levels are pixels of
_WIDE = 3.0  # standard deviations that count


@dataclass(frozen=True)
class Blur:
    """Convolved with a normal curve, whose width grows with the root of the shorter side.

    With the root, levels come near those of Hendrycks and Dietterich (2019) for 32 pixels and for 224.
    """

    name: ClassVar[str] = "blur"
    summary: ClassVar[str] = "out of focus"
    unit: ClassVar[str] = f"standard deviation in pixels, of {_SIDE}"
    forms: ClassVar[tuple[Form, ...]] = ("image",)
    levels: ClassVar[tuple[float, ...]] = (0.5, 0.75, 1.0, 1.4, 2.0)

    def apply(self, rows: Tensor, level: float, scale: Scale, generator: Generator) -> Tensor:
        sigma = level * math.sqrt(min(rows.shape[-2:]) / _SIDE)
        for dim in (-2, -1):
            rows = _along(rows, dim, sigma)
        return rows


def _along(rows: Tensor, dim: int, sigma: float) -> Tensor:
    """Convolved along one dimension; beyond the edge lies what is at the edge."""
    reach = max(1, round(_WIDE * sigma))
    curve = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=torch.float64) / sigma) ** 2)
    last = rows.movedim(dim, -1)
    flat = functional.pad(last.reshape(-1, 1, last.shape[-1]), (reach, reach), mode="replicate")
    found = functional.conv1d(flat, (curve / curve.sum()).to(rows).view(1, 1, -1))
    return found.reshape(last.shape).movedim(-1, dim)
