"""Brings arrays of inputs to the type and the layout that a model takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graftkit.core.errors import DataError
from graftkit.datasets.rows import Called, each


def check_finite(rows: np.ndarray, where: str) -> None:
    """Raise DataError, naming `where` and how many rows, if there is NaN or infinity in them."""
    bad = len(rows) - int(np.isfinite(rows.reshape(len(rows), -1)).all(axis=1).sum()) if rows.size else 0
    if bad:
        raise DataError(f"{where}: {bad} of {len(rows)} rows hold NaN or infinity; leave them out or fill them in")


def conform_inputs(inputs: Any, called: Called) -> Any:
    """Each input in the type that a model takes; one of several may be a mask, so booleans stay there.

    Raises DataError as `conform_dtype` does.
    """
    several = isinstance(inputs, (dict, tuple))
    return each(lambda array, name: conform_dtype(array, name, masks=several), inputs, called)


def conform_dtype(inputs: np.ndarray, where: str, *, masks: bool = False) -> np.ndarray:
    """Inputs as float32, uint8 scaled by 1/255; other integers are numbers of tokens and become int64.

    Booleans become float32, too, but stay as they are where there may be `masks`.

    Raises DataError, naming `where`, for anything that is no number, and for NaN or infinity.
    """
    if inputs.ndim == 0:
        raise DataError(f"{where} is a single number; give one entry a row")
    match inputs.dtype.kind:
        case "u" if inputs.dtype == np.uint8:
            return inputs.astype(np.float32) / np.float32(255)
        case "b":
            return inputs.astype(np.bool_ if masks else np.float32)
        case "i" | "u":
            return inputs.astype(np.int64)
        case "f":
            with np.errstate(over="ignore"):
                values = inputs.astype(np.float32)
            check_finite(values, where)
            return values
        case _:
            raise DataError(f"{where} holds {inputs.dtype}; give numbers")


def token_warning(inputs: np.ndarray, where: str) -> tuple[str, ...]:
    """What to say of conformed inputs that stayed integers."""
    text = f"{where} holds integers and is given to the model as they are, as tokens; store float32 for features"
    return (text,) if inputs.dtype == np.int64 else ()


def conform_layout(
    inputs: np.ndarray, where: str, input_shape: Sequence[int] | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Add a missing channel axis, or bring channels to the front, where `input_shape` leaves no doubt.

    Returns the inputs and what has to be said about it. What still does not fit is left as it is.
    """
    if input_shape is None or _fits(inputs.shape, input_shape):
        return inputs, ()
    if len(input_shape) == inputs.ndim + 1 and input_shape[1] == 1:
        return inputs[:, None], ()
    if inputs.ndim >= 4 and _fits((len(inputs), inputs.shape[-1], *inputs.shape[1:-1]), input_shape):
        moved = np.ascontiguousarray(np.moveaxis(inputs, -1, 1))
        return moved, (f"{where} {list(inputs.shape)} has its channels last; they were moved to {list(moved.shape)}",)
    return inputs, ()


def _fits(shape: Sequence[int], wanted: Sequence[int]) -> bool:
    """Whether rows of such a shape can be given to a model; the batch may be anything, and so may -1."""
    return len(shape) == len(wanted) and all(w in (-1, s) for s, w in zip(shape[1:], wanted[1:], strict=True))
