"""What the terminal shows of an evaluation: corrupted inputs and few samples, each network in a column."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType

from graftkit.core.evaluations import CorruptedRecord, EvaluationReport, Gain, few_scores, paired
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
    """What the numbers say, a sentence for each part and network that the last is compared with."""
    if report.corrupted is not None:
        names = tuple(report.corrupted.clean)
        for name, gains in report.corrupted.gains.items():
            gain, clean = gains["all"], gains["clean"]
            yield (
                f"On corrupted rows {names[-1]} is {_above(report, gain)} {name}"
                f" (on the rows as they are: {_told(report, clean)})."
            )
    for share in report.shares[:1]:  # the table has the others
        names = tuple(report.at(share)[0].validation)
        for name in names[:-1]:
            yield (
                f"With {100 * share:.3g}% of the training rows {names[-1]} is"
                f" {_above(report, _few_gain(report, share, names[-1], name))} {name}."
            )


def _corrupted(report: EvaluationReport, record: CorruptedRecord) -> Iterator[Line]:
    names, last = tuple(record.clean), tuple(record.clean)[-1]
    heads = (f"{last} − {name}" for name in record.gains)
    yield Line((f"{report.metric} on {record.rows:,} {record.part} rows", *names, *heads), style="bold")
    rows = [("as they are", "clean", record.clean)]
    rows += [(name, name, record.mean(name)) for name in record.corruptions]
    rows += [("mean of all corruptions", "all", record.mean())]
    for title, key, scores in rows:
        gains = (_told(report, gains[key]) for gains in record.gains.values())
        own = (metric_value(report.metric, scores[name]) for name in names)
        yield Line((title, *own, *gains), style="green" if key == "all" else "")


def _few(report: EvaluationReport) -> Iterator[Line]:
    names = tuple(report.few[0].validation)
    part = "test" if report.few[0].test else "validation"
    seeds = len(report.at(report.shares[0]))
    title = f"{report.metric} on {part}, {seeds} seed{'s' * (seeds != 1)}"
    yield Line((title, *names, *(f"{names[-1]} − {name}" for name in names[:-1])), style="bold")
    for share in report.shares:
        records = report.at(share)
        own = (_spread(report, few_scores(records, name)) for name in names)
        gains = (_told(report, _few_gain(report, share, names[-1], name)) for name in names[:-1])
        yield Line((f"{100 * share:.3g}% of the rows ({records[0].rows:,})", *own, *gains))


def _spread(report: EvaluationReport, scores: Sequence[float]) -> str:
    """The mean, with the sample standard deviation where there are several."""
    mean = statistics.fmean(scores)
    several = len(scores) > 1
    return (
        metric_spread(report.metric, mean, statistics.stdev(scores)) if several else metric_value(report.metric, mean)
    )


def _few_gain(report: EvaluationReport, share: float, ours: str, theirs: str) -> Gain:
    records = report.at(share)
    return paired(few_scores(records, ours), few_scores(records, theirs))


def _told(report: EvaluationReport, gain: Gain) -> str:
    return metric_difference(report.metric, gain.value, gain.error).removesuffix(" points")


def _above(report: EvaluationReport, gain: Gain) -> str:
    """How far above or below, or that the noise hides it."""
    if not gain.sure:
        return f"not surely better or worse ({metric_difference(report.metric, gain.value, gain.error)}) than"
    told = metric_difference(report.metric, abs(gain.value), gain.error).removeprefix("+")
    return f"{told} {'above' if gain.value > 0 else 'below'}"
