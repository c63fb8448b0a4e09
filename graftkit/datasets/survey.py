"""Reads all rows of a user's dataset or loader once, to know their labels and that they can be trained on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from graftkit.core.errors import DataError
from graftkit.datasets.arrays import check_rows
from graftkit.datasets.inputs import conform_dtype, token_warning
from graftkit.datasets.labels import conform_targets
from graftkit.datasets.user_code import blamed


class ConformedRows(Dataset[tuple[Tensor, Tensor]]):
    """A map-style dataset whose rows come as tensors of the types that a model takes."""

    def __init__(self, rows: Dataset[Any], where: str):
        self.rows = rows
        self.where = where

    def __len__(self) -> int:
        return len(self.rows)  # type: ignore[arg-type]  # map-style datasets have a length, Dataset has none

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        inputs, target = _pair(self.rows[index], f"{self.where}[{index}]")
        values = conform_dtype(_array(inputs, f"{self.where}: inputs")[None], f"{self.where}[{index}] inputs")
        targets = conform_targets(_array(target, f"{self.where}: targets")[None], f"{self.where}[{index}] targets")
        return torch.from_numpy(values[0]), torch.from_numpy(targets)[0]


@dataclass(frozen=True)
class Survey:
    """What one reading of all rows found: every target, [rows, ...], the shape of a row, and what to say of it."""

    targets: np.ndarray
    row_shape: tuple[int, ...]
    warnings: tuple[str, ...]


def survey(rows: Dataset[Any] | DataLoader[Any], where: str, spec: str) -> Survey:
    """Read every row once. Raises DataError, naming `where`, for what cannot be trained on."""
    targets: list[np.ndarray] = []
    shape: tuple[int, ...] | None = None
    warnings: tuple[str, ...] = ()
    for inputs, labels in _batches(rows, where, spec):
        warnings = warnings or token_warning(inputs, f"{where} inputs")
        shape = inputs.shape[1:] if shape is None else shape
        _check_alike(inputs.shape[1:], shape, labels, targets, where)
        targets.append(labels)
    check_rows(sum(len(labels) for labels in targets), where)
    assert shape is not None
    return Survey(np.concatenate(targets), shape, warnings)


def _batches(rows: Dataset[Any] | DataLoader[Any], where: str, spec: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches of checked (inputs, targets); a dataset's rows are batches of one."""
    if not isinstance(rows, DataLoader):
        with blamed(spec):
            for index in range(len(rows)):  # type: ignore[arg-type]  # as above
                inputs, target = rows[index]
                yield inputs.numpy()[None], target.numpy()[None]
        return
    with blamed(spec):
        for batch in rows:
            yield _check_batch(batch, where)


def _check_batch(batch: Any, where: str) -> tuple[np.ndarray, np.ndarray]:
    """A loader is iterated as it is, so its batches must need no conversion."""
    inputs, labels = (_array(value, where) for value in _pair(batch, f"a batch of {where}"))
    values, targets = conform_dtype(inputs, f"{where} inputs"), conform_targets(labels, f"{where} targets")
    if len(values) != len(targets):
        raise DataError(f"a batch of {where} has {len(values)} inputs but {len(targets)} targets")
    for what, given, wanted in (("inputs", inputs, values), ("targets", labels, targets)):
        if given.dtype != wanted.dtype or given.shape != wanted.shape:
            raise DataError(
                f"{where} gives {what} {given.dtype} {list(given.shape)}, which have to be {wanted.dtype}"
                f" {list(wanted.shape)}; convert them in the dataset"
            )
    return values, targets


def _check_alike(
    row: tuple[int, ...], first: tuple[int, ...], labels: np.ndarray, earlier: list[np.ndarray], where: str
) -> None:
    if row != first:
        raise DataError(f"{where} has rows of shapes {list(first)} and {list(row)}; bring them to one shape")
    if earlier and (labels.shape[1:] != earlier[0].shape[1:] or labels.dtype != earlier[0].dtype):
        raise DataError(
            f"{where} has targets {earlier[0].dtype} {list(earlier[0].shape[1:])} and {labels.dtype}"
            f" {list(labels.shape[1:])} a row; bring them to one type and shape"
        )


def _pair(row: Any, where: str) -> tuple[Any, Any]:
    if isinstance(row, (tuple, list)) and len(row) == 2:
        return row[0], row[1]
    count = f" of {len(row)}" if isinstance(row, (tuple, list)) else ""
    raise DataError(f"{where} is of type {type(row).__name__}{count}; give pairs of (inputs, targets)")


def _array(value: Any, where: str) -> np.ndarray:
    """The value's numbers, on the CPU."""
    if isinstance(value, Tensor):
        tensor = value.detach().cpu()
        return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    if isinstance(value, (np.ndarray, np.generic, bool, int, float)):
        return np.asarray(value)
    raise DataError(f"{where} holds values of type {type(value).__name__}; give tensors, arrays or numbers")
