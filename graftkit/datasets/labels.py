"""What labels mean: integers name classes, floats are values; and what makes them unusable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from graftkit.core.errors import DataError
from graftkit.datasets.inputs import check_finite


@dataclass(frozen=True)
class Labels:
    """What the labels of all parts have in common."""

    kind: Literal["classes", "values"]
    classes: int | None
    warnings: tuple[str, ...]


def conform_targets(labels: np.ndarray, where: str) -> np.ndarray:
    """Classes as int64 [rows] (or [rows, ...] for several labels a row), values as float32 [rows, outputs].

    Raises DataError, naming `where`, for what is neither.
    """
    if labels.ndim == 0:
        raise DataError(f"{where} is a single number; give one label a row")
    match labels.dtype.kind:
        case "b" | "i" | "u":
            return _conform_classes(labels, where)
        case "f":
            with np.errstate(over="ignore"):
                values = labels.astype(np.float32)
            check_finite(values, where)
            return values[:, None] if values.ndim == 1 else values
        case _:
            raise DataError(f"{where} holds {labels.dtype}; give integers (classes) or floats (values)")


def describe_targets(parts: Mapping[str, np.ndarray], names: Sequence[str] = ()) -> Labels:
    """Sum up conformed targets, the training part first; `names` are what classes are called.

    Raises DataError where parts disagree or the training labels leave nothing to learn.
    """
    train_name, train = next(iter(parts.items()))
    for name, targets in parts.items():
        if targets.dtype != train.dtype:
            raise DataError(
                f"{train_name} holds {_kind(train)} but {name} holds {_kind(targets)}; give all parts one type"
            )
        if targets.shape[1:] != train.shape[1:]:
            raise DataError(
                f"{name} has labels of shape {list(targets.shape[1:])} a row but {train_name}"
                f" {list(train.shape[1:])}; give all parts one shape"
            )
    return _describe_classes(parts, names) if train.dtype == np.int64 else _describe_values(train, train_name)


def _conform_classes(labels: np.ndarray, where: str) -> np.ndarray:
    if labels.ndim == 2 and labels.shape[1] > 1 and _is_one_hot(labels):
        raise DataError(f"{where} is one-hot, {list(labels.shape)}; give class numbers, for instance argmax(axis=1)")
    if labels.size and labels.min() < 0:
        rows = int((labels.reshape(len(labels), -1) < 0).any(axis=1).sum())
        raise DataError(f"{where} has negative labels in {rows} of {len(labels)} rows; classes count from 0")
    squeezed = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    return squeezed.astype(np.int64)


def _is_one_hot(labels: np.ndarray) -> bool:
    return bool(np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all())


def _describe_classes(parts: Mapping[str, np.ndarray], names: Sequence[str]) -> Labels:
    train_name, train = next(iter(parts.items()))
    seen = np.unique(train)
    if len(seen) < 2:
        raise DataError(f"{train_name} holds only one class ({_called(seen, names)}); there is nothing to tell apart")
    strange = {name: np.setdiff1d(targets, seen) for name, targets in parts.items()}
    warnings = tuple(
        f"{name} has labels that {train_name} never has: {_called(labels, names)}"
        for name, labels in strange.items()
        if len(labels)
    )
    return Labels("classes", int(max(targets.max() for targets in parts.values())) + 1, warnings)


def _describe_values(train: np.ndarray, name: str) -> Labels:
    whole = bool((train == np.round(train)).all()) and len(np.unique(train)) <= 100
    warning = f"{name} holds whole numbers stored as floats, taken as values; store integers if they are classes"
    return Labels("values", None, (warning,) if whole else ())


def _kind(targets: np.ndarray) -> str:
    return "integers (classes)" if targets.dtype == np.int64 else "floats (values)"


def _called(labels: np.ndarray, names: Sequence[str]) -> str:
    shown = [names[label] if names else str(label) for label in labels[:5].tolist()]
    return ", ".join(shown) + (f" and {len(labels) - 5} more" if len(labels) > 5 else "")
