"""Turns arrays, one input or several and the labels, into checked parts that live in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map
from torch.utils.data import Dataset, TensorDataset

from graftkit.core.errors import DataError
from graftkit.datasets.inputs import conform_inputs, conform_layout, token_warning
from graftkit.datasets.labels import conform_targets
from graftkit.datasets.rows import Called, members


class ArrayRows(Dataset[tuple[Any, Tensor]]):
    """Rows of (inputs, targets) in memory, where there are several inputs.

    An index gives one row, a list of indices a whole batch, so that a `DataLoader` with a `BatchSampler` as its
    sampler and no batch size of its own indexes once a batch.

    Args:
        inputs: a dict or a tuple of tensors, [rows, ...] each.
        targets: [rows, ...].
    """

    batched = True

    def __init__(self, inputs: dict[str, Tensor] | tuple[Tensor, ...], targets: Tensor):
        self.inputs = inputs
        self.targets = targets

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int | list[int]) -> tuple[Any, Tensor]:
        return tree_map(lambda tensor: tensor[index], self.inputs), self.targets[index]

    def pick(self, indices: list[int]) -> ArrayRows:
        """Only these rows, in this order."""
        return ArrayRows(*self[indices])


@dataclass(frozen=True)
class ArrayPart:
    """The rows of one part.

    Attributes:
        inputs: an array, a tuple of them or a dict of them by name; float32, int64 for tokens, bool for masks.
        targets: int64 or float32.
        warnings: what a user has to know, one line each.
    """

    inputs: Any
    targets: np.ndarray
    warnings: tuple[str, ...] = ()

    def rows(self) -> TensorDataset | ArrayRows:
        """The part as a dataset of (inputs, targets)."""
        inputs, targets = tree_map(torch.from_numpy, self.inputs), torch.from_numpy(self.targets)
        return TensorDataset(inputs, targets) if isinstance(inputs, Tensor) else ArrayRows(inputs, targets)

    def pick(self, indices: np.ndarray) -> ArrayPart:
        """Only these rows, in this order."""
        return ArrayPart(tree_map(lambda array: array[indices], self.inputs), self.targets[indices])


def conform_part(
    inputs: Any, labels: np.ndarray, *, called: Called, labels_called: str, input_shape: Sequence[int] | None
) -> ArrayPart:
    """Check and convert one part.

    Args:
        inputs: an array, a tuple of them in the model's order, or a dict of them by name.
        labels: as `conform_targets` takes them.
        called: what each input is called in messages, given its key in `rows.members`.
        labels_called: what the labels are called.
        input_shape: what the model takes, batch included, for a single input.

    Raises DataError for lengths that differ, too few rows, and what no network can learn from.
    """
    values, targets = conform_inputs(inputs, called), conform_targets(labels, labels_called)
    _check_lengths(values, targets, called, labels_called)
    if not isinstance(values, np.ndarray):
        return ArrayPart(values, targets)
    placed, moved = conform_layout(values, called(""), input_shape)
    return ArrayPart(placed, targets, token_warning(placed, called("")) + moved)


def check_rows(rows: int, where: str) -> None:
    """Raise DataError for a part too small to measure or to train on."""
    if rows < 2:
        raise DataError(f"{where} has {rows} row{'s' * (rows != 1)}; a part needs at least 2")


def _check_lengths(values: Any, targets: np.ndarray, called: Called, labels_called: str) -> None:
    arrays = {called(key): array for key, array in members(values).items()} | {labels_called: targets}
    first = next(iter(arrays))
    rows = len(arrays[first])
    for name, array in arrays.items():
        if len(array) != rows:
            raise DataError(f"{first} has {rows} rows but {name} has {len(array)}; give one label a row, and one input")
    check_rows(rows, first)
    for name, array in arrays.items():
        if array.size == 0:
            raise DataError(f"{name} {list(array.shape)} has rows without a single number")
