"""A sweep as a picture: every network by size and validation score, and both fronts."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from graftkit.core.trials import Point, SweepReport
from graftkit.reporting import figures
from graftkit.reporting.figures import COLOURS
from graftkit.reporting.wording import compact, is_accuracy

_MANY = 3.0  # sizes so many times apart are drawn by their logarithm


def front_svg(report: SweepReport) -> str:
    """Networks with dendrites and without, each family with its front as steps; there has to be one at least."""
    with figures.drawing():
        figure = Figure(figsize=(8.4, 4.8), layout="constrained")
        axes = figure.subplots()
        sizes = [report.price(p.measured) for grafted in (True, False) for p in report.points(grafted=grafted)]
        right = max(sizes)
        for grafted, colour, mark, label in (
            (False, COLOURS["control"], "s", "without dendrites"),
            (True, COLOURS["grafted"], "o", "with dendrites"),
        ):
            _family(axes, report, grafted, colour, mark, label, right)
        if max(sizes) > _MANY * max(1, min(sizes)):
            figures.by_logarithm(axes)
        else:
            axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: compact(round(value))))
        axes.set_xlabel("parameters" if report.cost == "parameters" else "multiply-adds for one row")
        axes.set_ylabel(f"{report.metric} on validation{' (%)' * is_accuracy(report.metric)}")
        axes.grid(axis="y", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(length=0, which="both")
        figure.legend(loc="outside upper left", ncols=4, frameon=False, fontsize=9.5)
        return figures.svg(figure, name="accuracy against size", page=False)


def _family(axes: Axes, report: SweepReport, grafted: bool, colour: str, mark: str, label: str, right: int) -> None:
    points, front = report.points(grafted=grafted), report.front(grafted=grafted)
    if not points:
        return
    axes.plot(*_places(report, points), mark, color=colour, markersize=4.5, alpha=0.45, label=label)
    x, y = _places(report, front)
    axes.step([*x, right], [*y, y[-1]], where="post", color=colour, linewidth=1.6, label=f"front {label}")
    axes.plot(x, y, mark, color=colour, markersize=6)


def _places(report: SweepReport, points: list[Point]) -> tuple[list[int], list[float]]:
    scale = 100 if is_accuracy(report.metric) else 1
    return [report.price(p.measured) for p in points], [scale * p.measured.validation for p in points]
