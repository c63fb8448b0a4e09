"""Pictures of a compression: every layer before and after, its width drawn to scale; and score against size."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from graftkit.core.compressions import CompressionReport
from graftkit.reporting import figures
from graftkit.reporting.compressions import by_size
from graftkit.reporting.figures import COLOURS, FAINT, GRID, INK
from graftkit.reporting.wording import compact, elide, is_accuracy

_MANY = 60  # more layers than so many are not drawn


def layers_svg(report: CompressionReport) -> str:
    """A bar a layer, as long as it has outputs: what went is an outline, what stayed is filled, dendrites below it."""
    layers = report.layers[:_MANY]
    with figures.drawing():
        figure = Figure(figsize=(8.4, 0.34 * len(layers) + 0.9), layout="constrained")
        axes = figure.subplots()
        for number, layer in enumerate(layers):
            axes.barh(
                number, layer.before, height=0.62, facecolor="none", edgecolor=FAINT, linewidth=0.9, linestyle=":"
            )
            axes.barh(number, layer.after, height=0.62, color=COLOURS["control"], alpha=0.55)
            if layer.dendrites:
                axes.barh(number + 0.23, layer.dendrites, height=0.16, color=COLOURS["grafted"])
            lost = f"{layer.before} to {layer.after}" if layer.after != layer.before else f"{layer.after}"
            where = (layer.before, number)
            axes.annotate(lost, where, (5, 0), textcoords="offset points", va="center", color=INK, fontsize=8.5)
        axes.set_yticks(range(len(layers)), [elide(layer.name or "(the model)", 34) for layer in layers])
        axes.set_ylim(len(layers) - 0.4, -0.6)
        axes.set_xlim(0, max((layer.before for layer in layers), default=1) * 1.18)
        axes.set_xlabel("outputs")
        axes.tick_params(length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x", linewidth=0.6, color=GRID)
        axes.set_axisbelow(True)
        _legend(figure, any(layer.dendrites for layer in layers))
        return figures.svg(figure, name="layers before and after", page=True)


def _legend(figure: Figure, grafted: bool) -> None:
    from matplotlib.patches import Patch

    handles = [
        Patch(facecolor="none", edgecolor=FAINT, linestyle=":", label="given"),
        Patch(facecolor=COLOURS["control"], alpha=0.55, label="left"),
    ]
    if grafted:
        handles.append(Patch(facecolor=COLOURS["grafted"], label="of them with dendrites"))
    figure.legend(handles=handles, loc="outside upper left", ncols=3, frameon=False, fontsize=9.5)


def sizes_svg(report: CompressionReport) -> str:
    """The metric on validation against the target's cost, given and every size, with the knee marked."""
    scale = 100 if is_accuracy(report.metric) else 1
    sizes = [each[0] for each in by_size(report)]
    with figures.drawing():
        figure = Figure(figsize=(8.4, 4.2), layout="constrained")
        axes = figure.subplots()
        amounts = [size.amount for size in sizes]
        for name, width, colour, values in (  # where both are one, the thin line lies on the wide one
            ("pruned", 4.5, COLOURS["control"], [size.pruned.validation for size in sizes]),
            ("what is chosen", 1.6, COLOURS["grafted"], [size.best.validation for size in sizes]),
        ):
            points = [scale * value for value in values]
            axes.plot(amounts, points, "o-", color=colour, linewidth=width, markersize=3 + width, label=name)
        scratch = [(size.amount, scale * size.scratch.validation) for size in sizes if size.scratch]
        if scratch:
            axes.plot(*zip(*scratch, strict=True), "s", color=FAINT, markersize=4, label="same shape from scratch")
        axes.axhline(scale * report.given.validation, color=FAINT, linewidth=0.9, linestyle="--", label="given")
        if report.knee is not None:
            size = report.sizes[report.knee]
            axes.annotate(
                "knee",
                (size.amount, scale * size.best.validation),
                xytext=(0, -22),
                textcoords="offset points",
                ha="center",
                color=INK,
                arrowprops={"arrowstyle": "-", "color": FAINT},
            )
        figures.by_logarithm(axes)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: compact(round(value))))
        axes.set_xlabel(report.unit)
        axes.set_ylabel(f"{report.metric} on validation{' (%)' * is_accuracy(report.metric)}")
        axes.grid(axis="y", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(length=0, which="both")
        figure.legend(loc="outside upper left", ncols=4, frameon=False, fontsize=9.5)
        return figures.svg(figure, name="score against size", page=True)
