"""Sound, series and plain values that are louder or softer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from graftkit.corruptions.corruption import Form, Scale


@dataclass(frozen=True)
class Gain:
    """Each row multiplied by so much, or divided."""

    name: ClassVar[str] = "gain"
    summary: ClassVar[str] = "louder or softer"
    unit: ClassVar[str] = "dB, up or down"
    forms: ClassVar[tuple[Form, ...]] = ("series", "values")
    levels: ClassVar[tuple[float, ...]] = (2.0, 4.0, 6.0, 9.0, 12.0)

    def apply(self, rows: Tensor, level: float, scale: Scale, generator: Generator) -> Tensor:
        up = torch.rand(len(rows), generator=generator).to(rows.device) < 0.5
        factor = torch.where(up, 10 ** (level / 20), 10 ** (-level / 20)).to(rows.dtype)
        return rows * factor.view(-1, *(1 for _ in rows.shape[1:]))
