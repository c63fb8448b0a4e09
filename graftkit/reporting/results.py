"""The rows of the result table as text, the same in the terminal and on the page."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from graftkit.core.records import Measurement, RunReport, SeedRecord
from graftkit.reporting import wording

COLUMNS = ("validation", "test", "parameters", "multiply-adds")


@dataclass(frozen=True, slots=True)
class ResultRow:
    """One network,or one mean over seeds: a name, a word of explanation and a cell for each of `COLUMNS`."""

    name: str
    meaning: str
    cells: tuple[str, ...]
    kind: str  # "baseline", "control" or "grafted"


def result_rows(report: RunReport) -> tuple[ResultRow, ...]:
    """Baseline, control and what ships; also the best network with dendrites, where another one ships."""
    base = report.baseline
    rows = [ResultRow("baseline", "as given", _cells(report, base), "baseline")]
    if report.control is not None:
        rows.append(ResultRow("control", "same epochs", _cells(report, report.control), "control"))
    if report.shipped == "given":
        if report.best_grafted is not None:
            cells = _cells(report, report.best_grafted)
            rows.append(ResultRow("best grafted", "not shipped", cells, "grafted"))
        rows.append(ResultRow("ships", "the model as given", _cells(report, report.grafted), "baseline"))
    else:
        rows.append(ResultRow("grafted", "what ships", _cells(report, report.grafted), "grafted"))
    return tuple(rows)


def seed_rows(report: RunReport) -> tuple[ResultRow, ...]:
    """Mean ± sample standard deviation over the seeds of control and grafted network; empty for one seed."""
    rows = []
    controls = [seed.control for seed in _grown(report) if seed.control is not None]
    grafted = [seed.grafted for seed in _grown(report)]
    for kind, found in (("control", controls), ("grafted", grafted)):
        if len(found) > 1:
            rows.append(ResultRow(kind, f"{len(found)} seeds", _mean_cells(report, found), kind))
    return tuple(rows)


def pairs(report: RunReport) -> list[tuple[Measurement, Measurement]]:
    """Grafted and control of the seeds that have both; a seed whose budget bought nothing has no grafted network."""
    return [(s.grafted, s.control) for s in _grown(report) if s.control is not None]


def _grown(report: RunReport) -> list[SeedRecord]:
    return [seed for seed in report.seeds if seed.grafted.parameters > report.baseline.parameters]


def shown_seed(report: RunReport) -> int:
    """The repetition whose numbers the report shows: the one whose grafted network is the report's."""
    best = report.best_grafted or report.grafted
    return next((seed.seed for seed in report.seeds if seed.grafted == best), report.seed)


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (n - 1 in the denominator); at least two values."""
    return statistics.fmean(values), statistics.stdev(values)


def _cells(report: RunReport, row: Measurement) -> tuple[str, ...]:
    base = report.baseline
    return (
        wording.metric_value(report.metric, row.validation),
        wording.metric_value(report.metric, row.test),
        _with_growth(f"{row.parameters:,}", row.parameters, base.parameters),
        _with_growth(wording.compact(row.macs), row.macs, base.macs),
    )


def _with_growth(words: str, count: float, base: float) -> str:
    grown = wording.growth(count, base)
    return f"{words} ({grown})" if grown else words


def _mean_cells(report: RunReport, found: Sequence[Measurement]) -> tuple[str, ...]:
    tests = [row.test for row in found if row.test is not None]
    parameters = statistics.fmean(row.parameters for row in found)
    macs = statistics.fmean(row.macs for row in found)
    return (
        wording.metric_spread(report.metric, *mean_and_spread([row.validation for row in found])),
        wording.metric_spread(report.metric, *mean_and_spread(tests)) if len(tests) == len(found) else "-",
        _with_growth(f"{parameters:,.0f}", parameters, report.baseline.parameters),
        _with_growth(wording.compact(round(macs)), macs, report.baseline.macs),
    )
