"""What a sweep found, for the terminal: both fronts as tables, and what dendrites bought at equal size, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.console import RenderableType

from graftkit.core.trials import Point, SweepReport
from graftkit.reporting import wording
from graftkit.reporting.tables import Line, Lines
from graftkit.reporting.wording import metric_value

_OF_DENDRITES = (
    "dendrites",
    "sites",
    "budget",
    "max-parameters",
    "join",
    "mask",
    "rule",
    "freeze-base",
)  # nothing to a control


def front_table(report: SweepReport) -> RenderableType:
    """The networks that no smaller one beats: those with dendrites, then those without."""
    lines = [Line((report.metric, *_prices(report), "validation", "test"), style="bold")]
    for grafted, title in ((True, "with dendrites"), (False, "without")):
        front = report.front(grafted=grafted)
        if front:
            lines.append(Line((title,) + ("",) * (len(lines[0].cells) - 1), style="green" if grafted else ""))
        for point in front:
            lines.append(Line((f"  {point_name(report, point)}", *_cells(report, point))))
            if point.trial is not None:
                settings = point.trial.settings
                own = settings if grafted else {k: v for k, v in settings.items() if k not in _idle(report)}
                lines.append(Line(text=settings_words(own), indent=4))
    return Lines(tuple(lines))


def sweep_words(report: SweepReport) -> Iterator[str]:
    """How many trials there were, what the best are, and that the best of many flatter themselves."""
    states = [trial.state for trial in report.trials]
    failed = [trial for trial in report.trials if trial.state == "failed"]
    yield f"Trials that came to their end: {states.count('complete')} of {len(states)}."
    if failed:
        yield f"{len(failed)} failed; trial {failed[-1].number}: {failed[-1].trouble}"
    front = report.front(grafted=True)
    if not front:
        return
    best = front[-1]
    yield f"With dendrites: {_described(report, best)}."
    plain = _within(report, report.price(best.measured))
    if plain is None:
        smallest = report.front(grafted=False)
        what = "no network without them is as small" if smallest else "there is no network without them to compare with"
        yield f"Without: {what}."
        return
    yield f"Without, and no larger: {_described(report, plain)}."
    if plain.measured.validation >= best.measured.validation:
        yield "So nothing is won by dendrites at this size: take the plain network."
    else:
        gain = wording.metric_difference(report.metric, best.measured.validation - plain.measured.validation)
        ours, theirs, kept = best.measured.test, plain.measured.test, ""
        if ours is not None and theirs is not None:
            kept = f", {wording.metric_difference(report.metric, ours - theirs)} on test"
        yield f"So at this size the network with dendrites scores {gain} on validation{kept}."
    yield (
        "The best of many trials look better on validation than they are; test rows decided nothing. Repeat what you"
        f" choose with `graftkit {report.command} --seeds 5`."
    )


def point_name(report: SweepReport, point: Point) -> str:
    """Which network it is, as "trial 3" or "trial 3, control"."""
    if point.trial is None:
        return "the model as given"
    return f"trial {point.trial.number}" if point.grafted else f"trial {point.trial.number}, {report.plain}"


def _idle(report: SweepReport) -> tuple[str, ...]:
    """Settings that are nothing to a network without dendrites; `compress` trains longer where they compete."""
    return _OF_DENDRITES if report.command == "augment" else ()


def settings_words(settings: Mapping[str, str]) -> str:
    """What was set, as it would be written on the command line."""
    return " ".join(f"{name}={value}" for name, value in settings.items())


def _within(report: SweepReport, price: int) -> Point | None:
    """The best plain network that costs no more."""
    within = [point for point in report.front(grafted=False) if report.price(point.measured) <= price]
    return within[-1] if within else None


def _described(report: SweepReport, point: Point) -> str:
    measured = point.measured
    test = "" if measured.test is None else f", {metric_value(report.metric, measured.test)} on test"
    size = f"{measured.parameters:,} parameters, {wording.compact(measured.macs)} multiply-adds"
    score = f"{metric_value(report.metric, measured.validation)} on validation{test}"
    return f"{score}, with {size} ({point_name(report, point)})"


def _prices(report: SweepReport) -> tuple[str, ...]:
    names = ("parameters", "multiply-adds")
    return names if report.cost == "parameters" else names[::-1]


def _cells(report: SweepReport, point: Point) -> tuple[str, ...]:
    measured = point.measured
    sizes = (f"{measured.parameters:,}", wording.compact(measured.macs))
    sizes = sizes if report.cost == "parameters" else sizes[::-1]
    return (*sizes, metric_value(report.metric, measured.validation), metric_value(report.metric, measured.test))
