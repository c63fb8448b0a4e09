"""Shares of the training rows: each class gives its share, and a smaller share lies within a larger one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch.utils.data import DataLoader

from graftkit import training
from graftkit.contracts import Data
from graftkit.core.errors import DataError
from graftkit.datasets.splitting import split_rows

_LEAST = 2  # rows to learn from


def nested(data: Data, shares: Sequence[float], *, seed: int) -> dict[float, Data]:
    """The data with so much of the training rows, by share.

    Raises DataError for a loader, whose rows cannot be told apart, and for shares that leave next to nothing.
    """
    if isinstance(data.train, DataLoader):
        raise DataError(
            f"{data.name} gives its training rows by a loader, of which no share can be taken; give a dataset with"
            " a length, or leave few samples out with --only corruptions"
        )
    labels = _labels(data)
    rows, found = np.arange(len(labels)), {}
    for share in sorted(shares, reverse=True):
        wanted = round(share * len(labels))
        if wanted < _LEAST:
            raise DataError(f"{share:.3g} of {len(labels)} training rows is {wanted}; give larger --shares")
        if wanted < len(rows):
            strata = labels[rows] if data.classes and labels.ndim == 1 else None
            _, taken = split_rows(len(rows), wanted / len(rows), seed=seed, strata=strata)
            rows = rows[taken]
        found[share] = replace(data, train=training.take(data.train, rows.tolist()))
    return found


def _labels(data: Data) -> np.ndarray:
    """The targets of all training rows."""
    targets = [targets for _, targets in training.batches(data.train, training.BATCH)]
    return torch.cat(targets).numpy()
