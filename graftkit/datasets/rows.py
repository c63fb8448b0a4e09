"""What a row may look like: (inputs, targets), or one dict with the labels among its inputs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader

from graftkit.core.errors import DataError

# What an input is called in messages, given its key: a name, a number in order, or "" where it is the only one.
Called = Callable[[str], str]

_LABELS = ("labels", "label")
_FORM = "give pairs of (inputs, targets)"


def pair(row: Any, where: str) -> tuple[Any, Any]:
    """(inputs, targets) of a row or a batch, whose inputs are one value, a tuple or a dict of them.

    Raises DataError, naming `where`, for what is neither a pair nor a dict with `labels` in it.
    """
    if isinstance(row, Mapping):
        return _split_labels(row, where)
    if isinstance(row, (tuple, list)) and len(row) == 2:
        return _plain(row[0], where), row[1]
    many = isinstance(row, (tuple, list)) and len(row) > 2
    count = f" of {len(row)}" if isinstance(row, (tuple, list)) else ""
    hint = "; several inputs are a tuple or a dict of their own: ((a, b), targets)" if many else ""
    raise DataError(f"{where} is of type {type(row).__name__}{count}; {_FORM}{hint}")


def inputs_called(where: str) -> Called:
    """What the inputs of a user's rows are called."""
    return lambda key: f"{where} input {key}" if key else f"{where} inputs"


def members(inputs: Any) -> dict[str, Any]:
    """Each input by its key: its name in a dict, its number in a tuple, "" where it is the only one."""
    match inputs:
        case dict():
            return inputs
        case tuple():
            return {str(index): value for index, value in enumerate(inputs)}
        case _:
            return {"": inputs}


def each(change: Callable[[Any, str], Any], inputs: Any, called: Called) -> Any:
    """The inputs with `change(value, what it is called)` in place of every value."""
    changed = {key: change(value, called(key)) for key, value in members(inputs).items()}
    match inputs:
        case dict():
            return changed
        case tuple():
            return tuple(changed.values())
        case _:
            return changed[""]


def paired(loader: DataLoader[Any]) -> DataLoader[Any]:
    """The same loader, whose batches come as pairs where it gives dicts with labels."""
    same = copy.copy(loader)  # what the user holds stays as it is
    same.collate_fn = _Paired(loader.collate_fn)
    return same


@dataclass(frozen=True)
class _Paired:
    """Splits what `collate` makes; a class, because workers of a loader pickle it."""

    collate: Callable[[Any], Any]

    def __call__(self, rows: Any) -> Any:
        batch = self.collate(rows)
        try:
            return pair(batch, "a batch")
        except DataError:  # left for the survey, which knows where it is; a worker's error has many lines
            return batch


def _split_labels(row: Mapping[Any, Any], where: str) -> tuple[Any, Any]:
    found = [name for name in _LABELS if name in row]
    if not found:
        kind = type(row).__name__
        raise DataError(f"{where} is of type {kind}; {_FORM}, or name the targets labels in it")
    if len(found) == 2:
        raise DataError(f"{where} has both labels and label; keep the one that is to be learnt")
    inputs = {name: value for name, value in row.items() if name not in found}
    if not inputs:
        raise DataError(f"{where} holds {found[0]} alone; give the inputs beside them")
    return _plain(inputs, where), row[found[0]]


def _plain(inputs: Any, where: str) -> Any:
    """Inputs as a plain dict or tuple where there are several; a list of numbers is one."""
    if isinstance(inputs, Mapping):
        strange = [name for name in inputs if not isinstance(name, str) or not name]
        if strange or not inputs:
            problem = f"an input called {strange[0]!r}" if strange else "an empty dict of inputs"
            raise DataError(f"{where} has {problem}; name each input as the model does")
        return dict(inputs)
    if isinstance(inputs, (tuple, list)) and any(isinstance(value, (Tensor, np.ndarray)) for value in inputs):
        return tuple(inputs)
    return inputs
