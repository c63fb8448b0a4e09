"""Normal noise on sound, series and plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from graftkit.corruptions.corruption import Form, Scale


@dataclass(frozen=True)
class Noise:
    """Normal noise at a ratio to the spread of each feature over rows and time."""

    name: ClassVar[str] = "noise"
    summary: ClassVar[str] = "normal noise on every number"
    unit: ClassVar[str] = "signal to noise, in dB"
    forms: ClassVar[tuple[Form, ...]] = ("series", "values")
    levels: ClassVar[tuple[float, ...]] = (20.0, 15.0, 10.0, 5.0, 0.0)

    def apply(self, rows: Tensor, level: float, scale: Scale, generator: Generator) -> Tensor:
        noise = torch.randn(rows.shape, generator=generator).to(rows)
        return rows + scale.spread.to(rows) * 10 ** (-level / 20) * noise
