"""Matplotlib figures as SVG: in a page with the page's own colours, light or dark, or alone on white."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

# Colours that occur nowhere else, so that the page's own (light or dark) can take their place.
INK, FAINT, GRID = "#010203", "#040506", "#070809"
COLOURS: Mapping[str, str] = {"grafted": "#0a0b0c", "control": "#0d0e0f", "dendrite": "#101112"}
_VARIABLES: Mapping[str, str] = {
    INK: "var(--ink)", FAINT: "var(--muted)", GRID: "var(--line)", COLOURS["grafted"]: "var(--accent)",
    COLOURS["control"]: "var(--control)", COLOURS["dendrite"]: "var(--phase)",
}  # fmt: skip
_PLAIN: Mapping[str, str] = {
    INK: "#1c2530", FAINT: "#5d6875", GRID: "#dfe3e8", COLOURS["grafted"]: "#0b7a5d",
    COLOURS["control"]: "#c2621b", COLOURS["dendrite"]: "#eceff3",
}  # fmt: skip
_SETTINGS: Mapping[str, object] = {
    "svg.hashsalt": "graftkit", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9.5,
    "text.color": INK, "axes.labelcolor": FAINT, "xtick.color": FAINT, "ytick.color": FAINT,
    "axes.edgecolor": GRID, "axes.spines.top": False, "axes.spines.right": False, "grid.color": GRID,
    "axes.unicode_minus": False,
}  # fmt: skip


@contextmanager
def drawing() -> Iterator[None]:
    """A context in which figures are drawn as they are here; matplotlib has no other way than its own table."""
    with matplotlib.rc_context(dict(_SETTINGS)):  # type: ignore[arg-type]
        yield


def by_logarithm(axes: Axes) -> None:
    """Sizes along x by their logarithm, written short."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_minor_formatter(NullFormatter())


def svg(figure: Figure, *, name: str, page: bool) -> str:
    """The figure's SVG element alone; on a page with the page's colours, otherwise on white."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=page, facecolor="white", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    for colour, other in (_VARIABLES if page else _PLAIN).items():
        text = text.replace(colour, other)
    return text.replace("<svg ", f'<svg class="curves" role="img" aria-label="{name}" ', 1)
