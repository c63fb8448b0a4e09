"""The largest difference between a runtime's outputs and the trained model's, relative to their scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

TOLERANCE = 1e-4
BATCHES = (1, 2, 7)  # one row, the traced number, and one that nothing was made for


def compare(
    run: Callable[[np.ndarray], list[np.ndarray]], forward: Callable[[Tensor], Tensor], inputs: Iterable[Tensor]
) -> float:
    """The largest |runtime - model| / scale over all inputs; infinite where shapes differ or a value is not finite.

    The scale of an output column (dimension 1) is its largest |model|, but at least a hundredth of the largest of
    all columns: one that hardly speaks is not measured by its rounding errors.

    Args:
        run: a runtime's function from one batch to all outputs.
        forward: the trained model in evaluation mode.
        inputs: batches, each [rows, ...].
    """
    worst, scale = np.zeros(1), np.zeros(1)
    for batch in inputs:
        with torch.no_grad():
            expected = forward(batch).detach().cpu().double().numpy()
        given = np.asarray(run(batch.detach().cpu().numpy())[0], dtype=np.float64)
        if given.shape != expected.shape or not np.isfinite(given).all() or not np.isfinite(expected).all():
            return math.inf
        worst = np.maximum(worst, _by_column(np.abs(given - expected)))
        scale = np.maximum(scale, _by_column(np.abs(expected)))
    return float((worst / np.maximum(np.maximum(scale, 1e-2 * scale.max()), 1e-12)).max())


def _by_column(values: np.ndarray) -> np.ndarray:
    """The largest value of each column."""
    largest: np.ndarray = values.max(axis=tuple(d for d in range(values.ndim) if d != 1), initial=0.0)
    return largest.reshape(-1)


def random_like(rows: Tensor, *, seed: int = 0) -> Iterator[Tensor]:
    """Batches of 1, 2 and 7: rows as they are, then random values over the range that the rows span.

    Args:
        rows: at least 7 rows of real data, [rows, ...].
    """
    for size in BATCHES:
        yield rows[:size]
    generator = torch.Generator().manual_seed(seed)
    low, high = float(rows.min()), float(rows.max())
    for size in BATCHES:
        shape = (size, *rows.shape[1:])
        if rows.is_floating_point():
            yield low + (high - low) * torch.rand(shape, generator=generator, dtype=rows.dtype)
        else:
            yield torch.randint(int(low), int(high) + 1, shape, generator=generator, dtype=rows.dtype)
