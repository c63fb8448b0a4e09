"""Inputs to compare outputs on: like the real ones, but not them."""

from __future__ import annotations

import torch
from torch import Tensor

BATCHES = (1, 2, 7)  # one row, the traced number, and one that nothing was made for


def random_like(inputs: tuple[Tensor, ...], *, seed: int = 0) -> tuple[Tensor, ...]:
    """Other values for each input, in the same shapes.

    Floats are drawn over the range that is there. Whole numbers and truth values, and floats that only say yes or no,
    are real rows in another order, the same for all inputs: a mask keeps what it masks, an index stays in range.

    Args:
        inputs: real data, each [rows, ...] or a single number.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = next((len(x) for x in inputs if x.ndim), 1)
    order = torch.randint(rows, (rows,), generator=generator)
    return tuple(_drawn(x, generator) if _is_measured(x) else _shuffled(x, order) for x in inputs)


def _is_measured(values: Tensor) -> bool:
    """Whether values are measurements rather than a mask of zeros and ones, or of zeros and minus infinities."""
    if not values.is_floating_point() or not values.numel() or not torch.isfinite(values).all():
        return False
    return not bool(((values == 0) | (values == 1)).all())


def _drawn(values: Tensor, generator: torch.Generator) -> Tensor:
    low, high = float(values.min()), float(values.max())
    drawn = torch.rand(values.shape, generator=generator, dtype=torch.float64)
    return (low + (high - low) * drawn).to(values.dtype)


def _shuffled(values: Tensor, order: Tensor) -> Tensor:
    return values[order] if values.ndim and len(values) == len(order) else values
