"""The run's curves as inline SVG: validation metric and loss over epochs, and when dendrites were grafted."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from graftkit.core.records import EpochRecord, PhaseRecord, RunReport
from graftkit.reporting import figures
from graftkit.reporting.figures import COLOURS, INK
from graftkit.reporting.results import shown_seed
from graftkit.reporting.wording import is_accuracy


def curves_svg(report: RunReport) -> str:
    """Both curves as one SVG element whose colours are the page's variables; empty without epochs."""
    if not report.epochs:
        return ""
    with figures.drawing():
        figure = Figure(figsize=(12.4, 3.8), layout="constrained")
        left, right = figure.subplots(1, 2)
        _validation(left, report)
        _loss(right, report)
        for axes in (left, right):
            _mark_phases(axes, _phases(report))
            _frame(axes)
        handles, labels = left.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=5, frameon=False, fontsize=9.5)
        return figures.svg(figure, name="curves", page=True)


def _validation(axes: Axes, report: RunReport) -> None:
    scale = 100 if is_accuracy(report.metric) else 1
    for (arm, seed), epochs in _arms(report.epochs).items():
        values = [scale * epoch.validation for epoch in epochs]
        _draw(axes, arm, seed == shown_seed(report), [epoch.epoch for epoch in epochs], values)
    base = scale * report.baseline.validation
    axes.axhline(base, color=INK, linewidth=1, linestyle=(0, (4, 3)), label="the model as given")
    axes.set_title(f"{report.metric} on validation{' (%)' * (scale == 100)}", loc="left", fontsize=10.5, pad=8)


def _loss(axes: Axes, report: RunReport) -> None:
    """The loss of neuron phases; a dendrite phase has an objective of its own, which is another scale."""
    for (arm, seed), epochs in _arms(report.epochs).items():
        values = [epoch.loss if epoch.phase != "dendrite" else math.nan for epoch in epochs]
        _draw(axes, arm, seed == shown_seed(report), [epoch.epoch for epoch in epochs], values)
    axes.set_title("training loss", loc="left", fontsize=10.5, pad=8)


def _draw(axes: Axes, arm: str, main: bool, x: Sequence[int], y: Sequence[float]) -> None:
    finite = [value if math.isfinite(value) else math.nan for value in y]
    width, alpha = (2.0, 1.0) if main else (1.0, 0.35)
    style: dict[str, Any] = {"color": COLOURS.get(arm, INK), "linewidth": width, "alpha": alpha}
    # A single epoch is no line, so it is a dot.
    marker = "o" if len(finite) == 1 else ""
    axes.plot(x, finite, marker=marker, markersize=4, label=arm if main else None, zorder=3 + main, **style)


def _arms(epochs: Sequence[EpochRecord]) -> dict[tuple[str, int], list[EpochRecord]]:
    """Epochs by arm and seed, in order."""
    found: dict[tuple[str, int], list[EpochRecord]] = {}
    for epoch in sorted(epochs, key=lambda e: (e.arm, e.seed, e.epoch)):
        if epoch.arm not in COLOURS:  # a trial's
            continue
        found.setdefault((epoch.arm, epoch.seed), []).append(epoch)
    return found


def _phases(report: RunReport) -> list[PhaseRecord]:
    return [phase for phase in report.phases if (phase.arm, phase.seed) == ("grafted", shown_seed(report))]


def _mark_phases(axes: Axes, phases: Sequence[PhaseRecord]) -> None:
    """Shade dendrite phases, and draw a line where the network has more dendrites than before."""
    start = 0.5
    starts = list(itertools.accumulate((phase.epochs for phase in phases), initial=0))
    label: str | None = "dendrite phase"
    for phase, first in zip(phases, starts, strict=False):
        if phase.phase == "dendrite" and phase.epochs:
            axes.axvspan(start + first, start + first + phase.epochs, color=COLOURS["dendrite"], lw=0, label=label)
            label = None
    label = "dendrites grafted"
    before = 0
    for phase, first in zip(phases, starts, strict=False):
        if phase.dendrites > before:
            axes.axvline(start + first, color=COLOURS["grafted"], linewidth=1, linestyle=":", label=label)
            label = None
        before = phase.dendrites


def _frame(axes: Axes) -> None:
    axes.set_xlabel("epoch")
    axes.grid(axis="y", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    axes.margins(x=0.01)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
