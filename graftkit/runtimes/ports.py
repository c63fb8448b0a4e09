"""Checks that what a file is given is what it takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from graftkit.core.errors import MismatchError, shown


def check_names(given: Mapping[str, np.ndarray], wanted: Sequence[str], runtime: str) -> None:
    """Raise MismatchError where an input is missing, or the file knows none of that name."""
    missing = [name for name in wanted if name not in given]
    unknown = [name for name in given if name not in wanted]
    if missing or unknown:
        what = f"no input {missing[0]!r}" if missing else f"an input {unknown[0]!r} that it does not have"
        raise MismatchError(f"{runtime}: the file takes {', '.join(wanted) or 'nothing'}, and was given {what}")


def shapes(given: Mapping[str, np.ndarray]) -> str:
    """What was given, for a message: `x [2, 3], mask [2]`."""
    return ", ".join(f"{name} {list(value.shape)}" for name, value in given.items())


def first_line(error: Exception) -> str:
    """An error's first line, not too long."""
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


def telling_line(error: object) -> str:
    """The first line of a long report that says something: where in a library it was raised tells nobody anything."""
    lines = (line.strip(" -") for line in str(error).splitlines())
    telling = (line for line in lines if line and not line.startswith(_EMPTY))
    return shown(next(telling, type(error).__name__), 300)


_EMPTY = ("Exception from", "Check '", "FrontEnd API failed", "Model wasn't fully converted", "Summary:")
