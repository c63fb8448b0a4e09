"""How much of a metric a file may lose against the model that it was made of, and what it says of that itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from graftkit.core.errors import ExportError, MismatchError
from graftkit.folding import PREFIX, OnnxFile, read_description

TOLERANCE = 0.005  # of the metric: what `export` allows by itself, and the most that a file is believed


@dataclass(frozen=True)
class Promise:
    """What a file that computes something else says of itself.

    Attributes:
        what: its precision, or "gate".
        tolerance: how much of the metric it may lose, as `--tolerance` has it.
        threshold: of its gate; None where it has none.
    """

    what: str
    tolerance: float
    threshold: float | None = None


def allowed(before: float, tolerance: float) -> float:
    """How much of a metric may go: so much of its unit; of one below zero, which is a loss with a minus, a share."""
    return tolerance * abs(before) if before < 0 else tolerance


def holds(before: float, after: float, tolerance: float) -> bool:
    """Whether no more than that is lost; never where it is no number."""
    return before - after <= allowed(before, tolerance)


def promised(opened: OnnxFile) -> Promise | None:
    """What a file says that it may lose; None for one that has to compute what the trained model computes.

    Raises ExportError where what it says cannot be read.
    """
    facts = read_description(opened.outline)
    gate, precision = facts.get("gate"), facts.get("precision")
    if gate is None and precision is None:
        return None
    what = "gate" if gate is not None else str(precision)
    threshold = None if gate is None else _number(gate, "threshold", "gate")
    return Promise(what, _number(facts, "tolerance", what), threshold)


def believed(promise: Promise, tolerance: float | None) -> Promise:
    """What a file may lose: so much as was asked for, or what it says of itself, up to TOLERANCE.

    Whoever changed a file could change what it says, too. Raises MismatchError for a file that says more.
    """
    if tolerance is not None:
        return replace(promise, tolerance=tolerance)
    if promise.tolerance > TOLERANCE:
        raise MismatchError(
            f"the file ({promise.what}) says of itself that it may lose {promise.tolerance:g} of the metric, and no"
            f" file is believed more than {TOLERANCE:g}; accept it with --tolerance {promise.tolerance:g}"
            " (metric_tolerance in Python)"
        )
    return promise


def _number(facts: Any, name: str, what: str) -> float:
    """A number of zero or more from a file's metadata."""
    try:
        found = float(facts[name]) if isinstance(facts, Mapping) else math.nan
    except (KeyError, OverflowError, TypeError, ValueError):
        found = math.nan
    if 0 <= found < math.inf:
        return found
    raise ExportError(
        f"the ONNX file says in its metadata that it was exported with {PREFIX}{what[:40]}, but not its {name};"
        " export it again"
    )
