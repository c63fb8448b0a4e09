"""Splits rows into two parts, stratified for classes and decided by a seed alone."""

from __future__ import annotations

import numpy as np

from graftkit.core.errors import DataError

VALIDATION_SHARE = 0.2
SPLIT_WARNING = (
    "no validation part: 20% of the training rows were split off; the given model may have learned from"
    " those rows, which flatters it"
)


def split_rows(rows: int, share: float, *, seed: int, strata: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the rows that stay and of the `share` that is split off, both ascending.

    Each class gives its share within one row, and keeps at least one row. `strata` is the class of every
    row, [rows]; None where rows have no class.
    """
    # The legacy generator, because its stream is frozen for good: a split outlives numpy's releases.
    order = np.random.RandomState(seed % 2**32).permutation(rows)
    groups = _groups(order, np.zeros(rows, dtype=np.int64) if strata is None else strata)
    counts = _shares([len(group) for group in groups], share)
    pairs = list(zip(groups, counts, strict=True))
    kept = np.sort(np.concatenate([group[count:] for group, count in pairs]))
    taken = np.sort(np.concatenate([group[:count] for group, count in pairs]))
    return kept, taken


def split_validation(labels: np.ndarray, *, classes: bool, seed: int, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the training rows that stay and of those that become the validation part.

    `labels` are the targets of all training rows; they stratify where there is one class a row. Raises
    DataError, naming `where`, for fewer rows than a split needs.
    """
    strata = labels if classes and labels.ndim == 1 else None
    rows = len(labels)
    if rows >= 4:
        train, validation = split_rows(rows, VALIDATION_SHARE, seed=seed, strata=strata)
        if len(validation) >= 2:
            return train, validation
    raise DataError(f"{where}: {rows} rows are too few to split a validation part off; give a validation part")


def _groups(order: np.ndarray, strata: np.ndarray) -> list[np.ndarray]:
    return [order[strata[order] == stratum] for stratum in np.unique(strata)]


def _shares(sizes: list[int], share: float) -> list[int]:
    """How many rows each group gives: rounded down, then the largest remainders up until the total is right."""
    counts = [int(size * share) for size in sizes]
    missing = max(2, round(sum(sizes) * share)) - sum(counts)
    for group in sorted(range(len(sizes)), key=lambda g: counts[g] - sizes[g] * share):
        if missing > 0 and counts[group] < sizes[group] - 1:
            counts[group] += 1
            missing -= 1
    return counts
