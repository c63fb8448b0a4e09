"""What dendrites were worth to each neuron, as a picture: a row a dendrite, a step a neuron."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from graftkit.core.values import Spending, ValueRecord
from graftkit.reporting import figures
from graftkit.reporting.values import cells, ranked
from graftkit.reporting.wording import elide

MOST = 40  # rows; of more, those that pay most
_LETTERS = 34


def value_svg(spending: Spending, *, page: bool = False) -> str:
    """Rows of neurons, the most worth first: kept ones strong, others faint, harm below the line; empty without any.

    `page`: whether it is shown in the report, whose colours it then takes.
    """
    found = ranked(spending)[:MOST]
    if not found:
        return ""
    top = max(max(max(value.worth, default=0.0), 0.0) for value in found)
    low = max(max(-min(value.worth, default=0.0), 0.0) for value in found)
    scale = max(top, low, 1e-12)
    with figures.drawing():
        figure = Figure(figsize=(9.2, 0.7 + 0.52 * len(found)), layout="constrained")
        all_axes = figure.subplots(len(found), 1, squeeze=False)[:, 0]
        for axes, value in zip(all_axes, found, strict=True):
            _row(axes, value, scale)
            site, dendrite, worth, _, _, kept, _ = cells(spending, value)
            axes.set_ylabel(
                f"{elide(site, _LETTERS)}\n{elide(dendrite, _LETTERS)}",
                rotation=0, ha="right", va="center", fontsize=8.5, labelpad=8,
            )  # fmt: skip
            axes.text(1.01, 0.5, f"{worth}\nkept {kept}", transform=axes.transAxes, fontsize=8.5, va="center")
        highest = max((value for one in found for value in one.worth), key=abs, default=0.0)
        figure.supxlabel(
            f"neurons, those that are kept first, by what they are worth; the longest bar is {1000 * highest:+.3g}"
            " thousandths of the loss",
            fontsize=8.5,
        )
        return figures.svg(figure, name="worth of dendrites", page=page)


def _row(axes: Axes, value: ValueRecord, scale: float) -> None:
    """One dendrite's neurons as bars over the whole width."""
    kept = set(value.kept)
    order = sorted(range(len(value.worth)), key=lambda n: (n not in kept, -value.worth[n]))
    width = 1 / len(order)
    for stays, harms in ((True, False), (False, False), (True, True), (False, True)):
        chosen = [
            (place, value.worth[n])
            for place, n in enumerate(order)
            if (n in kept) == stays and (value.worth[n] < 0) == harms
        ]
        if chosen:
            places, heights = zip(*chosen, strict=True)
            axes.bar(
                [(place + 0.5) * width for place in places], heights, width=width,
                color=figures.COLOURS["control" if harms else "grafted"], alpha=1.0 if stays else 0.35, linewidth=0,
            )  # fmt: skip
    axes.axhline(0, color=figures.GRID, linewidth=0.8)
    axes.set_xlim(0, 1)
    axes.set_ylim(-scale, scale)
    axes.set_xticks([])
    axes.set_yticks([])
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
