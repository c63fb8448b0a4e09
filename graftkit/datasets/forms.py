"""Whether rows are alike: the same inputs, each of one type and one shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from graftkit.core.errors import DataError
from graftkit.datasets.rows import members

# For each input, by its key: the type and the shape that one row of it has.
RowForm = Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]


@dataclass(frozen=True)
class _Difference:
    """In what two rows differ: `what` is "shape", "type" or "inputs"; `at` is the input, where it is one of several."""

    at: str
    what: str
    one: str
    other: str


def form_of(inputs: Any) -> RowForm:
    """The form of the rows in a batch of arrays, [rows, ...] each."""
    return {key: (array.dtype, array.shape[1:]) for key, array in members(inputs).items()}


def check_rows_alike(first: RowForm, row: RowForm, where: str) -> None:
    """Raise DataError where two rows of the part `where` differ."""
    found = _difference(first, row)
    if found is not None:
        words = "with inputs" if found.what == "inputs" else f"of {found.what}s"
        raise DataError(
            f"{where}{found.at} has rows {words} {found.one} and {found.other}; give all rows the same {found.what}"
        )


def check_parts_alike(forms: Mapping[str, RowForm], spec: str) -> None:
    """Raise DataError where the rows of one part differ from those of the first."""
    first = next(iter(forms))
    for part, form in forms.items():
        found = _difference(forms[first], form)
        if found is not None:
            words = "with inputs" if found.what == "inputs" else f"of {found.what}"
            raise DataError(
                f"{spec}: {first}{found.at} has rows {words} {found.one} but {part} {found.other};"
                f" give all parts the same {found.what}"
            )


def _difference(one: RowForm, other: RowForm) -> _Difference | None:
    if one.keys() != other.keys():
        return _Difference("", "inputs", _names(one), _names(other))
    for key, (dtype, shape) in one.items():
        at = f" input {key}" if key else ""
        if shape != other[key][1]:
            return _Difference(at, "shape", str(list(shape)), str(list(other[key][1])))
        if dtype != other[key][0]:
            return _Difference(at, "type", str(dtype), str(other[key][0]))
    return None


def _names(form: RowForm) -> str:
    return f"({', '.join(key or 'a single one' for key in form)})"
