"""What labels mean: integers name classes, floats are values; and what makes them unusable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from graftkit.core.errors import DataError
from graftkit.datasets.inputs import check_finite

IGNORED = -100  # the class that cross_entropy leaves out by itself: padding, parts of words, unlabelled pixels


@dataclass(frozen=True)
class Labels:
    """What the labels of all parts have in common."""

    kind: Literal["classes", "values"]
    classes: int | None
    warnings: tuple[str, ...]


def conform_targets(labels: np.ndarray, where: str) -> np.ndarray:
    """Classes as int64 [rows] (or [rows, ...] for several labels a row), values as float32 [rows, outputs].

    Where a row has several labels, -100 leaves one of them out. Raises DataError, naming `where`, for what is neither.
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
    classes = (labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels).astype(np.int64)
    several = classes.ndim > 1
    negative = (classes < 0) & ((classes != IGNORED) | (not several))
    if negative.any():
        rows = int(negative.reshape(len(labels), -1).any(axis=1).sum())
        hint = f"; {IGNORED} leaves one out" if several else ""
        raise DataError(f"{where} has negative labels in {rows} of {len(labels)} rows; classes count from 0{hint}")
    return classes


def _check_not_one_hot(labels: np.ndarray, where: str) -> None:
    """Of all rows, since a single row of labels for tokens may well hold one 1 and zeros."""
    if labels.ndim == 2 and np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all():
        raise DataError(f"{where} is one-hot, {list(labels.shape)}; give class numbers, for instance argmax(axis=1)")


def _describe_classes(parts: Mapping[str, np.ndarray], names: Sequence[str]) -> Labels:
    found = {name: _classes_in(targets, name) for name, targets in parts.items()}
    train_name, seen = next(iter(found.items()))
    _check_not_one_hot(parts[train_name], train_name)
    if len(seen) < 2:
        raise DataError(f"{train_name} holds only one class ({_called(seen, names)}); there is nothing to tell apart")
    strange = {name: np.setdiff1d(classes, seen) for name, classes in found.items()}
    warnings = tuple(
        f"{name} has labels that {train_name} never has: {_called(labels, names)}"
        for name, labels in strange.items()
        if len(labels)
    )
    return Labels("classes", int(max(classes[-1] for classes in found.values())) + 1, warnings)


def _classes_in(targets: np.ndarray, where: str) -> np.ndarray:
    """The classes that occur, ascending, without the one that is left out. Raises DataError where that is all."""
    classes = np.unique(targets)
    counted: np.ndarray = classes[classes != IGNORED]
    if len(counted) == 0:
        raise DataError(f"{where} holds only {IGNORED}, which leaves a label out; there is nothing to compare with")
    return counted


def _describe_values(train: np.ndarray, name: str) -> Labels:
    if len(train) > 1 and (train == train[:1]).all():
        return Labels("values", None, (f"{name} holds the same values in all rows: R\N{SUPERSCRIPT TWO} says nothing",))
    whole = bool((train == np.round(train)).all()) and len(np.unique(train)) <= 100
    warning = f"{name} holds whole numbers stored as floats, taken as values; store integers if they are classes"
    return Labels("values", None, (warning,) if whole else ())


def _kind(targets: np.ndarray) -> str:
    return "integers (classes)" if targets.dtype == np.int64 else "floats (values)"


def _called(labels: np.ndarray, names: Sequence[str]) -> str:
    shown = [names[label] if names else str(label) for label in labels[:5].tolist()]
    return ", ".join(shown) + (f" and {len(labels) - 5} more" if len(labels) > 5 else "")
