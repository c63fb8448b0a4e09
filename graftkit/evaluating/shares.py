"""Shares of the training rows: each class gives its share, and a smaller share lies within a larger one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch.utils.data import DataLoader

from graftkit import training
from graftkit.contracts import Data
from graftkit.core.errors import DataError

_LEAST = 2  # rows to learn from


def shared(data: Data, share: float, *, seed: int) -> Data:
    """The data with so much of the training rows, which a larger share of the same seed has, too.

    Raises DataError for a loader, whose rows cannot be told apart, and for a share that is next to nothing.
    """
    if isinstance(data.train, DataLoader):
        raise DataError(
            f"{data.name} gives its training rows by a loader, of which no share can be taken; give a dataset with"
            " a length, or leave few samples out with --only corruptions"
        )
    labels = _labels(data)
    count = round(share * len(labels))
    if count < _LEAST:
        raise DataError(f"{100 * share:.3g}% of {len(labels)} training rows is {count}; give larger --shares")
    order = spread_out(labels if data.classes and labels.ndim == 1 else np.zeros(len(labels)), seed)
    return replace(data, train=training.take(data.train, np.sort(order[:count]).tolist()))


def spread_out(labels: np.ndarray, seed: int) -> np.ndarray:
    """All rows in an order of which any beginning has its part of each class, within one row; [rows]."""
    # The legacy generator, because its stream is frozen for good: a choice outlives numpy's releases.
    drawn = np.random.RandomState(seed % 2**32).permutation(len(labels))
    place = np.empty(len(labels))
    for label in np.unique(labels):
        own = drawn[labels[drawn] == label]
        place[own] = (np.arange(len(own)) + 0.5) / len(own)
    return drawn[np.argsort(place[drawn], kind="stable")]


def _labels(data: Data) -> np.ndarray:
    """The targets of all training rows."""
    targets = [targets for _, targets in training.batches(data.train, training.BATCH)]
    return torch.cat(targets).numpy()
