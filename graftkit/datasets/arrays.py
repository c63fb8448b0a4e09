"""Turns pairs of arrays, inputs and labels, into checked parts that live in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import TensorDataset

from graftkit.core.errors import DataError
from graftkit.datasets.inputs import conform_dtype, conform_layout, token_warning
from graftkit.datasets.labels import conform_targets


@dataclass(frozen=True)
class ArrayPart:
    """The rows of one part: inputs float32 (int64 for tokens) and targets int64 or float32."""

    inputs: np.ndarray
    targets: np.ndarray
    warnings: tuple[str, ...] = ()

    def rows(self) -> TensorDataset:
        """The part as a dataset of (inputs, targets)."""
        return TensorDataset(torch.from_numpy(self.inputs), torch.from_numpy(self.targets))

    def pick(self, indices: np.ndarray) -> ArrayPart:
        """Only these rows, in this order."""
        return ArrayPart(self.inputs[indices], self.targets[indices])


def conform_part(
    inputs: np.ndarray, labels: np.ndarray, *, names: tuple[str, str], input_shape: Sequence[int] | None
) -> ArrayPart:
    """Check and convert one part; `names` are what its inputs and labels are called in messages.

    Raises DataError for lengths that differ, too few rows, and what no network can learn from.
    """
    x_name, y_name = names
    values, targets = conform_dtype(inputs, x_name), conform_targets(labels, y_name)
    if len(values) != len(targets):
        raise DataError(f"{x_name} has {len(values)} rows but {y_name} has {len(targets)}; give one label a row")
    check_rows(len(values), x_name)
    if values.size == 0:
        raise DataError(f"{x_name} {list(values.shape)} has rows without a single number")
    placed, moved = conform_layout(values, x_name, input_shape)
    return ArrayPart(placed, targets, token_warning(placed, x_name) + moved)


def check_rows(rows: int, where: str) -> None:
    """Raise DataError for a part too small to measure or to train on."""
    if rows < 2:
        raise DataError(f"{where} has {rows} row{'s' * (rows != 1)}; a part needs at least 2")
