"""A run's numbers as metrics.json has them; docs/metrics.md says what each key is."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from graftkit.core.records import RunReport


def metrics(report: RunReport) -> dict[str, Any]:
    """JSON-able."""
    keys = ("name", "metric", "seed", "shipped", "margin", "stopped")
    rows = ("baseline", "control", "grafted", "best_grafted")
    return {
        **{key: getattr(report, key) for key in keys},
        **{key: asdict(value) if (value := getattr(report, key)) else None for key in rows},
        "parity": dict(report.parity),
        "runtime_metric": dict(report.runtime_metric),
        "seeds": [asdict(seed) for seed in report.seeds],
        "warnings": list(report.warnings),
        "settings": dict(report.settings),
        "budget": _spent(report),
    }


def _spent(report: RunReport) -> dict[str, Any] | None:
    """What the budget was and what it went to, without each neuron's worth: that is in values.json."""
    if report.spending is None:
        return None
    return {key: value for key, value in report.spending.to_json().items() if key != "values"}
