"""Makes a kind, a frozen dataclass whose fields are its options, from a name and options given as text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from graftkit.core.errors import PlanError, did_you_mean
from graftkit.core.table import Table

Options = tuple[tuple[str, str | int | float | bool | None], ...]  # names and values, sorted by name
Kind = TypeVar("Kind")
_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def make(table: Table[type[Kind]], name: str, options: Mapping[str, Any]) -> Kind:
    """The kind called `name` with these options. Raises PlanError for an unknown kind, option or value."""
    kind = table.find(name)
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    for option in options:
        if option not in known:
            names = ", ".join(known) or "none"
            raise PlanError(f"{name} has no option {option!r}; there are {names}.{did_you_mean(option, known)}")
    return kind(**{option: _convert(name, known[option].type, option, value) for option, value in options.items()})


def parse(table: Table[type[Kind]], text: str) -> Kind:
    """A kind from text such as `context:units=2,mode=add`. Raises PlanError."""
    name, _, rest = text.partition(":")
    options: dict[str, str] = {}
    for part in filter(None, rest.split(",")):
        option, equals, value = part.partition("=")
        if not equals:
            raise PlanError(f"{text!r}: write options as name=value, as in 'context:units=2,mode=add'")
        options[option.strip()] = value.strip()
    return make(table, name.strip(), options)


def _convert(kind: str, annotation: Any, option: str, value: Any) -> Any:
    if annotation in ("int", int):
        try:
            return int(value)
        except (TypeError, ValueError):
            raise PlanError(f"{kind}: {option} must be a whole number, not {value!r}") from None
    if annotation in ("float", float):
        try:
            return float(value)
        except (TypeError, ValueError):
            raise PlanError(f"{kind}: {option} must be a number, not {value!r}") from None
    if annotation in ("bool", bool) and not isinstance(value, bool):
        if str(value).lower() not in _BOOLEANS:
            raise PlanError(f"{kind}: {option} must be true or false, not {value!r}")
        return _BOOLEANS[str(value).lower()]
    return value if isinstance(value, bool) else str(value)
