"""Reads how much of a cost was asked for: `10%`, `200k`, `4KB`, `50us`."""

from __future__ import annotations

import math
from collections.abc import Mapping

from graftkit.core.errors import PlanError


def share(text: str, where: str) -> float | None:
    """The share that `10%` is; None for what is none. Raises PlanError; `where` begins the message."""
    return positive(text[:-1], where) / 100 if text.endswith("%") else None


def amount(text: str, units: Mapping[str, float], name: str, where: str) -> float:
    """A number with one of the units of the cost called `name`. Raises PlanError."""
    text = text.replace("\N{MICRO SIGN}", "u").replace("\N{GREEK SMALL LETTER MU}", "u")
    digits = text.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    unit = text[len(digits) :]
    if unit not in units:
        offered = ", ".join(f"{each or 'none'}" for each in units)
        raise PlanError(f"{where}: {name} has the units {offered}, or write a share in percent")
    return positive(digits, where) * units[unit]


def positive(text: str, where: str) -> float:
    """A number above zero. Raises PlanError."""
    try:
        value = float(text.replace(",", "").replace("_", ""))
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise PlanError(f"{where}: {text!r} is no positive number")
    return value
