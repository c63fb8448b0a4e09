"""One call that writes a model as asked for: plain, in smaller numbers, or with a gate."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graftkit import folding
from graftkit.contracts import Data, Metric
from graftkit.core.errors import DataError, ExportError
from graftkit.folding import ONE_FILE
from graftkit.model import GraftedModel
from graftkit.shipping.gate import ship_gated
from graftkit.shipping.judging import score_for
from graftkit.shipping.layouts import PORTABLE
from graftkit.shipping.promises import TOLERANCE
from graftkit.shipping.shipment import ship
from graftkit.shipping.smaller import ship_smaller


def export(
    model: GraftedModel,
    path: str | Path,
    *,
    rows: Data | None = None,
    opset: int = folding.DEFAULT_OPSET,
    facts: Mapping[str, Any] | None = None,
    layout: str = PORTABLE,
    one_file: int = ONE_FILE,
    precision: str | None = None,
    gate: bool = False,
    metric: str | Metric | None = None,
    tolerance: float = TOLERANCE,
) -> Path:
    """Write the model as one plain ONNX file, and give its path: `ship`, `ship_smaller` or `ship_gated`.

    Args:
        model, path, rows, opset, facts, layout, one_file: as `ship` takes them.
        precision: "fp16", "bf16", "int8" or "int4"; it takes rows.
        gate: whether dendrites run for rows that need them alone, where that saves time; it takes rows.
        metric: a name, an import path or a function; as the labels suggest where it is None.
        tolerance: how much of the metric may be lost.

    Raises DataError for a precision or a gate without rows, ExportError for both at once, and what those raise.
    """
    how: dict[str, Any] = {"opset": opset, "facts": facts, "layout": layout, "one_file": one_file}
    if precision is None and not gate:
        return ship(model, path, rows, **how).path
    if precision is not None and gate:
        raise ExportError(f"a gate is for files in fp32; choose either the gate or {precision}")
    if rows is None:
        raise DataError(f"{precision or 'a gate'} is made from training rows and checked on validation rows; pass rows")
    score = score_for(metric, rows)
    if precision is None:
        return ship_gated(model, path, rows, score, tolerance=tolerance, **how).path
    return ship_smaller(model, path, rows, score, precision=precision, tolerance=tolerance, **how).path
