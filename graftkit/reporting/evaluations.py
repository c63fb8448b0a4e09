"""What the terminal shows of an evaluation: corrupted inputs and few samples, each network in a column."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator

from rich.console import Group, RenderableType

from graftkit.core.evaluations import ALL, CLEAN, CorruptedRecord, EvaluationReport, Gain
from graftkit.reporting.tables import Line, Lines
from graftkit.reporting.wording import metric_difference, metric_spread, metric_value


def evaluation_table(report: EvaluationReport) -> RenderableType:
    """The parts that were measured, one below the other."""
    parts: list[RenderableType] = []
    if report.corrupted is not None:
        parts.append(Lines(tuple(_corrupted(report, report.corrupted))))
    if report.few:
        parts += [Lines((Line(),))] * bool(parts)
        parts.append(Lines(tuple(_few(report))))
    return Group(*parts)


def evaluation_words(report: EvaluationReport) -> Iterator[str]:
    """What the numbers say, a sentence for each part and network that the last is compared with: the control first."""
    if report.corrupted is not None:
        yield from _corrupted_words(report, report.corrupted)
    for share in report.shares[:1]:  # the table has the others
        *others, ours = report.trained
        for name in reversed(others):
            gain = report.gain(share, ours, name)
            if gain is not None:
                yield f"With {100 * share:.3g}% of the training rows {ours} is {_above(report, gain)} {name}."


def _corrupted_words(report: EvaluationReport, record: CorruptedRecord) -> Iterator[str]:
    ours = tuple(record.clean)[-1]
    for name, gains in reversed(list(record.gains.items())):
        gain = gains.get(ALL)
        if gain is not None and math.isfinite(gain.value):
            clean = _told(report, gains[CLEAN])
            yield f"On corrupted rows {ours} is {_above(report, gain)} {name} (on the rows as they are: {clean})."


def _corrupted(report: EvaluationReport, record: CorruptedRecord) -> Iterator[Line]:
    names, last = tuple(record.clean), tuple(record.clean)[-1]
    heads = (f"{last} − {name}" for name in record.gains)
    yield Line((f"{report.metric} on {record.rows:,} {record.part} rows", *names, *heads), style="bold")
    rows = [("as they are", CLEAN, record.clean)]
    rows += [(name, name, record.mean(name)) for name in record.corruptions]
    if any(ALL in gains for gains in record.gains.values()):
        rows.append(("mean of all corruptions", ALL, record.mean()))
    for title, key, scores in rows:
        gains = (_told(report, gains[key]) for gains in record.gains.values())
        own = (_score(report, scores[name]) for name in names)
        yield Line((title, *own, *gains), style="green" if key == ALL else "")
    if record.gains:
        yield Line(text="± is of rows: the same networks on other rows. Trained another time they are others.")


def _few(report: EvaluationReport) -> Iterator[Line]:
    *others, ours = report.trained
    part = "test" if report.few[0].test else "validation"
    seeds = max(map(report.seeds, report.shares))
    title = f"{report.metric} on {part}, {seeds} seed{'s' * (seeds != 1)}"
    yield Line((title, *others, ours, *(f"{ours} − {name}" for name in others)), style="bold")
    for share in report.shares:
        own = (_spread(report, share, name) for name in report.trained)
        gains = (_told(report, report.gain(share, ours, name)) for name in others)
        yield Line((f"{100 * share:.3g}% of the rows ({report.rows(share):,})", *own, *gains))
    if seeds > 1:
        yield Line(text="± is the spread of seeds, and of differences their standard error, on the same test rows.")


def _score(report: EvaluationReport, score: float) -> str:
    return metric_value(report.metric, score if math.isfinite(score) else None)


def _spread(report: EvaluationReport, share: float, name: str) -> str:
    """The mean, with the sample standard deviation where there are several; of how many seeds, if not of all."""
    scores = report.scores(share, name)
    if not scores:
        return "-"
    lacking = len(scores) < report.seeds(share)
    mean, of = statistics.fmean(scores), f" (of {len(scores)})" if lacking else ""
    if len(scores) == 1 or not math.isfinite(mean):
        return _score(report, mean) + of
    return metric_spread(report.metric, mean, statistics.stdev(scores)) + of


def _told(report: EvaluationReport, gain: Gain | None) -> str:
    if gain is None or not math.isfinite(gain.value):
        return "-"
    return metric_difference(report.metric, gain.value, gain.error).removesuffix(" points")


def _above(report: EvaluationReport, gain: Gain) -> str:
    """How far above or below, or that the noise hides it."""
    if not gain.sure:
        return f"not surely better or worse ({metric_difference(report.metric, gain.value, gain.error)}) than"
    told = metric_difference(report.metric, abs(gain.value), gain.error).removeprefix("+")
    return f"{told} {'above' if gain.value > 0 else 'below'}"
