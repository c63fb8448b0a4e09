"""An evaluation as a picture: each corruption by its strength, and what few samples teach."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from graftkit.core.compressions import GIVEN, SCRATCH
from graftkit.core.evaluations import CorruptedRecord, EvaluationReport
from graftkit.reporting import figures
from graftkit.reporting.figures import COLOURS, FAINT, INK
from graftkit.reporting.wording import is_accuracy

_COLUMNS = 3
_CONTROLS = ("control", SCRATCH)


def evaluation_svg(report: EvaluationReport) -> str:
    """A panel for each corruption, with all networks, and a wide one for shares of the training rows."""
    kinds = report.corrupted.corruptions if report.corrupted else ()
    rows = -(-len(kinds) // _COLUMNS)
    with figures.drawing():
        figure = Figure(figsize=(9.6, 2.4 * rows + 3.2 * bool(report.few) + 0.4), layout="constrained")
        heights = [*[2.4] * rows, *[3.2] * bool(report.few)]
        grid = figure.add_gridspec(len(heights), _COLUMNS, height_ratios=heights)
        panels = []
        for number, kind in enumerate(kinds):
            axes = figure.add_subplot(grid[number // _COLUMNS, number % _COLUMNS])
            assert report.corrupted is not None
            _strengths(axes, report, report.corrupted, kind)
            panels.append(axes)
        if panels:
            low = min(axes.get_ylim()[0] for axes in panels)
            high = max(axes.get_ylim()[1] for axes in panels)
            for axes in panels:
                axes.set_ylim(low, high)
        if report.few:
            _few(figure.add_subplot(grid[rows, :]), report)
        known = {
            label: handle
            for axes in figure.axes
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(known.values(), known, loc="outside upper left", ncols=4, frameon=False, fontsize=9.5)
        return figures.svg(figure, name="corrupted inputs and few samples", page=False)


def _strengths(axes: Axes, report: EvaluationReport, record: CorruptedRecord, kind: str) -> None:
    for name, style in _styles(tuple(record.clean)).items():
        scores = [record.clean[name], *(r.scores[name] for r in record.strengths if r.corruption == kind)]
        axes.plot(range(len(scores)), [_scale(report) * score for score in scores], label=name, **style)
    axes.set_title(f"{kind}{' (%)' * is_accuracy(report.metric)}", loc="left", fontsize=9.5)
    axes.set_xlabel("strength", fontsize=8.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _frame(axes)


def _few(axes: Axes, report: EvaluationReport) -> None:
    for name, style in _styles(report.trained).items():
        shares = [share for share in report.shares if report.scores(share, name)]
        found = [report.scores(share, name) for share in shares]
        means = [_scale(report) * statistics.fmean(scores) for scores in found]
        spread = [_scale(report) * (statistics.stdev(scores) if len(scores) > 1 else 0.0) for scores in found]
        axes.errorbar([100 * share for share in shares], means, spread, label=name, capsize=3, **style)
    axes.set_title(f"{report.metric}{' (%)' * is_accuracy(report.metric)} with a share of the training rows, from"
                   f" {report.start} weights, mean and spread of seeds", loc="left", fontsize=9.5)  # fmt: skip
    axes.set_xticks([100 * share for share in report.shares], [f"{100 * share:.3g}%" for share in report.shares])
    _frame(axes)


def _styles(names: Sequence[str]) -> Mapping[str, dict[str, Any]]:
    """Given dashed, controls in their colour, what it is about in its; one style a network in all panels."""
    plain: dict[str, Any] = {"marker": "o", "markersize": 3.5, "linewidth": 1.5}
    own: dict[str, dict[str, Any]] = {name: {"color": COLOURS["control"]} for name in _CONTROLS}
    own[GIVEN] = {"color": INK, "linestyle": (0, (4, 3))}
    return {name: {**plain, **own.get(name, {"color": COLOURS["grafted"]})} for name in names}


def _scale(report: EvaluationReport) -> float:
    return 100.0 if is_accuracy(report.metric) else 1.0


def _frame(axes: Axes) -> None:
    axes.grid(axis="y", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelcolor=FAINT)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
