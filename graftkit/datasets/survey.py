"""Reads all rows of a user's dataset or loader once, to know their labels and that they can be trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map
from torch.utils.data import DataLoader, Dataset

from graftkit.core.errors import DataError
from graftkit.datasets.arrays import check_rows
from graftkit.datasets.forms import RowForm, check_rows_alike, form_of
from graftkit.datasets.inputs import conform_inputs, token_warning
from graftkit.datasets.labels import conform_targets
from graftkit.datasets.rows import each, inputs_called, members, pair
from graftkit.datasets.user_code import blamed


class ConformedRows(Dataset[tuple[Any, Tensor]]):
    """A map-style dataset whose rows come as (inputs, targets), tensors of the types that a model takes."""

    def __init__(self, rows: Any, where: str):
        self.rows = rows
        self.where = where

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Any, Tensor]:
        at = f"{self.where}[{index}]"
        given, target = pair(self.rows[index], at)
        called = inputs_called(at)
        inputs = conform_inputs(each(lambda value, name: _numbers(value, name)[None], given, called), called)
        targets = conform_targets(_numbers(target, f"{at} targets")[None], f"{at} targets")
        return tree_map(lambda array: torch.from_numpy(array[0, ...]), inputs), torch.from_numpy(targets)[0]


@dataclass(frozen=True)
class Survey:
    """What one reading of all rows found: every target, [rows, ...], what a row is like, and what to say of it."""

    targets: np.ndarray
    form: RowForm
    warnings: tuple[str, ...]


def survey(rows: Dataset[Any] | DataLoader[Any], where: str, spec: str) -> Survey:
    """Read every row once. Raises DataError, naming `where`, for what cannot be trained on."""
    targets: list[np.ndarray] = []
    form: RowForm | None = None
    warnings: tuple[str, ...] = ()
    for inputs, labels in _batches(rows, where, spec):
        if isinstance(inputs, np.ndarray):
            warnings = warnings or token_warning(inputs, f"{where} inputs")
        form = form_of(inputs) if form is None else form
        check_rows_alike(form, form_of(inputs), where)
        _check_targets_alike(labels, targets, where)
        targets.append(labels)
    check_rows(sum(len(labels) for labels in targets), where)
    assert form is not None
    _check_filled(form, where)
    return Survey(np.concatenate(targets), form, warnings)


def _batches(rows: Dataset[Any] | DataLoader[Any], where: str, spec: str) -> Iterator[tuple[Any, np.ndarray]]:
    """Batches of checked (inputs, targets); a dataset's rows are batches of one."""
    with blamed(spec):
        if isinstance(rows, DataLoader):
            for batch in rows:
                yield _check_batch(batch, where)
            return
        for index in range(len(rows)):  # type: ignore[arg-type]  # map-style datasets have a length, Dataset has none
            inputs, target = rows[index]
            yield tree_map(lambda tensor: tensor.numpy()[None], inputs), target.numpy()[None]


def _check_batch(batch: Any, where: str) -> tuple[Any, np.ndarray]:
    """A loader is iterated as it is, so its batches must need no conversion."""
    inputs, labels = pair(batch, f"a batch of {where}")
    if isinstance(batch, Mapping):  # otherwise the loader's collate function would have split it
        raise DataError(f"{where} makes its batches by itself, as dicts; let it give pairs of (inputs, targets)")
    called = inputs_called(where)
    each(_check_tensor, inputs, called)
    _check_tensor(labels, f"{where} targets")
    values = conform_inputs(each(_numbers, inputs, called), called)
    targets = conform_targets(_numbers(labels, where), f"{where} targets")
    for key, array in members(values).items():
        _check_needs_nothing(members(inputs)[key], array, where, f"input {key}" if key else "inputs")
        if len(array) != len(targets):
            raise DataError(f"a batch of {where} has {len(array)} inputs but {len(targets)} targets")
    _check_needs_nothing(labels, targets, where, "targets")
    return values, targets


def _check_tensor(value: Any, called: str) -> None:
    if not isinstance(value, Tensor):
        raise DataError(f"{called} holds values of type {type(value).__name__}; give tensors in a loader's batches")


def _check_needs_nothing(given: Tensor, wanted: np.ndarray, where: str, what: str) -> None:
    have, need = _typed(given), _typed(torch.from_numpy(wanted))
    if have != need:
        raise DataError(f"{where} gives {what} {have}, which have to be {need}; convert them in the dataset")


def _typed(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _check_targets_alike(labels: np.ndarray, earlier: list[np.ndarray], where: str) -> None:
    if earlier and (labels.shape[1:] != earlier[0].shape[1:] or labels.dtype != earlier[0].dtype):
        raise DataError(
            f"{where} has targets {earlier[0].dtype} {list(earlier[0].shape[1:])} and {labels.dtype}"
            f" {list(labels.shape[1:])} a row; bring them to one type and shape"
        )


def _check_filled(form: RowForm, where: str) -> None:
    for key, (_, shape) in form.items():
        if 0 in shape:
            raise DataError(f"{inputs_called(where)(key)}, {list(shape)} a row, have no numbers in them")


def _numbers(value: Any, called: str) -> np.ndarray:
    """The value's numbers, on the CPU; a list of them is what a tokenizer's rows hold. Raises DataError."""
    if isinstance(value, Tensor):
        tensor = value.detach().cpu()
        return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    if isinstance(value, (np.ndarray, np.generic, bool, int, float)):
        return np.asarray(value)
    found = _listed(value, called) if isinstance(value, list) else None
    if found is None or found.dtype.kind not in "biuf":
        raise DataError(f"{called} holds values of type {type(value).__name__}; give tensors, arrays or numbers")
    return found


def _listed(value: list[Any], called: str) -> np.ndarray:
    try:
        return np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        raise DataError(
            f"{called} is a list whose members differ in length or kind; bring them to one shape"
        ) from error
