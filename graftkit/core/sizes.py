"""Reads how many bytes `500MB` are."""

from __future__ import annotations

import math
from collections.abc import Mapping

from graftkit.core.errors import PlanError

UNITS: Mapping[str, float] = {
    "": 1, "B": 1, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30
}  # fmt: skip


def byte_count(text: str) -> int:
    """The bytes that `1GB` or `512MiB` are. Raises PlanError."""
    digits = text.strip().rstrip("BKMGkib")
    try:
        count = float(digits.replace("_", "x")) * UNITS[text.strip()[len(digits) :].strip()]
    except (ValueError, KeyError):
        count = math.nan
    if not (math.isfinite(count) and count >= 0):
        raise PlanError(f"{text!r} is no amount of memory; write it as 500MB or 2GB")
    return round(count)
