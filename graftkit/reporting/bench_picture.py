"""A bench as a picture: how long each file takes, by runtime and threads."""

from __future__ import annotations

from matplotlib.figure import Figure

from graftkit.core.benches import BenchReport
from graftkit.reporting import figures
from graftkit.reporting.benches import threads_words
from graftkit.reporting.figures import COLOURS

_ROW = 0.34  # inches for a bar


def bench_svg(report: BenchReport) -> str:
    """A bar for each file up to its median, and a line to what nine of ten turns stay below."""
    groups = {key: [t for t in timings if t.seconds] for key, timings in report.groups().items()}
    count = sum(len(timings) for timings in groups.values())
    with figures.drawing():
        figure = Figure(figsize=(8.4, 0.9 * len(groups) + _ROW * count), layout="constrained")
        heights = [max(1, len(timings)) for timings in groups.values()]
        panels = figure.subplots(len(groups), 1, squeeze=False, height_ratios=heights)[:, 0]
        for axes, ((runtime, threads), timings) in zip(panels, groups.items(), strict=True):
            unit, word = (1e6, "us") if all(t.median < 1e-3 for t in timings) else (1e3, "ms")
            names = [timing.subject for timing in timings]
            places = range(len(timings))
            medians = [timing.median * unit for timing in timings]
            beyond = [max(0.0, timing.p90 * unit - median) for timing, median in zip(timings, medians, strict=True)]
            first = report.subjects[0].name
            colours = [COLOURS["control" if timing.subject == first else "grafted"] for timing in timings]
            axes.barh(places, medians, xerr=[[0.0] * len(timings), beyond], color=colours, height=0.62,
                      error_kw={"ecolor": figures.FAINT, "elinewidth": 1})  # fmt: skip
            axes.set_yticks(places, names)
            axes.invert_yaxis()
            axes.set_title(f"{runtime}, {threads_words(threads)} ({word} a run)", loc="left", fontsize=9.5)
            axes.tick_params(length=0)
            axes.grid(axis="x", linewidth=0.6)
            axes.set_axisbelow(True)
        return figures.svg(figure, name="time of each file", page=False)
