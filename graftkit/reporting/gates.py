"""Gates at several thresholds, as a table for the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType

from graftkit.core.gates import GateReport, GateTrial
from graftkit.reporting.benches import threads_words
from graftkit.reporting.tables import Line, Lines

_HEADER = ("dendrites run for", "below a confidence of", "{metric}", "time, of ordinary", "99% limits")


def gate_table(report: GateReport, metric: str) -> RenderableType:
    """A row a threshold, the chosen one marked; then what was measured how, and what it gives on test rows."""
    header = Line(tuple(word.format(metric=metric) for word in _HEADER), style="bold")
    ordinary = Line(("all rows, without a gate", "", f"{report.before:.4f}", "1", ""))
    rows = (_row(report, index, trial) for index, trial in enumerate(report.trials))
    return Lines((header, ordinary, *rows, *_notes(report, metric)))


def _row(report: GateReport, index: int, trial: GateTrial) -> Line:
    chosen = index == report.best and report.pays
    share = f"{100 * trial.share:.1f}% of rows{' (chosen)' * chosen}"
    threshold = f"{trial.threshold:.4f}" if trial.threshold <= 1 else "any"
    limits = f"{trial.latency.low:.3f} to {trial.latency.high:.3f}"
    cells = (share, threshold, f"{trial.metric:.4f}", f"{trial.latency.median:.3f}", limits)
    return Line(cells, style="green" if chosen else "")


def _notes(report: GateReport, metric: str) -> Iterator[Line]:
    yield Line(
        text=f"Validation rows; {report.allowed:.2g} of {metric} may be lost. Time of one row: {report.rows} validation"
        f" rows one by one in {report.runtime}, {threads_words(report.threads)}."
    )
    if report.base_is_enough:
        yield Line(
            text=f"Without any dendrites {metric} is {report.trials[0].metric:.4f}, which loses no more than that: the"
            " network as it is without them would be faster still.",
            style="yellow",
        )
    if report.test is not None:
        before, after = report.test
        which = "the chosen gate" if report.pays else f"the gate at {100 * report.chosen.share:.1f}%"
        yield Line(text=f"On test rows, which decided nothing: {metric} {before:.4f}, with {which} {after:.4f}.")
