"""The network as a self-contained SVG picture: sites, what feeds what, and where dendrites were grafted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from xml.sax.saxutils import escape

from graftkit.core.records import DendriteRecord, Inspection, SiteRecord
from graftkit.reporting import layout, routes, wording
from graftkit.reporting.ranks import INPUT, Edge, Ranking, rank

NODE_WIDTH = 170.0
PLAIN_HEIGHT = 42.0
CHIP_HEIGHT = 18.0
PILL = (84.0, 26.0)
MARGIN = 24.0
LEGEND = 54.0
NAME_LETTERS = 22  # of 11 px monospace in a node
CALL_LETTERS = 21  # of 10.5 px, beside the number of parameters
CHIP_LETTERS = 17
FEW = 8  # names in a tooltip

LIGHT: Mapping[str, str] = {
    "page": "#ffffff", "node": "#ffffff", "line": "#cfd5dc", "name": "#1c2530", "text": "#5d6875", "band": "#f3f5f7",
    "flow": "#8d98a5", "skip": "#86a6dc", "graft": "#e6f6ef", "accent": "#0b7a5d", "chip": "#ffffff",
}  # fmt: skip
DARK: Mapping[str, str] = {
    "page": "#14181d", "node": "#222930", "line": "#3c4650", "name": "#e8ecf0", "text": "#a3aeba", "band": "#1b2127",
    "flow": "#76828e", "skip": "#5f83c4", "graft": "#14352b", "accent": "#45cfa2", "chip": "#06271c",
}  # fmt: skip
STYLE = """
.gk-page,.gk-halo{{fill:{page}}} .gk-band{{fill:{band}}} .gk-box{{fill:{node};stroke:{line}}}
.gk-grafted .gk-box{{fill:{graft};stroke:{accent};stroke-width:1.6}} .gk-pill{{fill:{band};stroke:{line}}}
.gk-name{{fill:{name}}} .gk-text,.gk-label{{fill:{text}}} .gk-label{{stroke:{band}}}
.gk-chip{{fill:{accent}}} .gk-chip-text{{fill:{chip}}} .gk-twig{{stroke:{chip}}} .gk-gain{{fill:{accent}}}
.gk-flow{{stroke:{flow}}} .gk-skip,.gk-back{{stroke:{skip}}} .gk-tip{{fill:{flow}}} .gk-tip-skip{{fill:{skip}}}
"""
FONTS = """
.gk-net text{font-family:"Helvetica Neue",Arial,"Liberation Sans","DejaVu Sans",sans-serif;font-size:10.5px}
.gk-net .gk-name{font-family:ui-monospace,Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:11px;font-weight:600}
.gk-net .gk-label{font-weight:600;letter-spacing:.4px;stroke-width:4px;paint-order:stroke}
.gk-net .gk-chip-text,.gk-net .gk-gain{font-weight:600}
.gk-flow,.gk-skip,.gk-back{fill:none;stroke-width:1.4} .gk-back{stroke-dasharray:4 3} .gk-twig{fill:none}
"""


def network_svg(inspection: Inspection) -> str:
    """The network of an inspection as one SVG element, light or dark as the reader's screen is.

    Every site is a node whose tooltip has its full name and numbers; a site with dendrites has the class
    "gk-grafted" and one chip for each kind. Names that XML cannot hold have the odd characters replaced.
    """
    ranking = rank(inspection)
    edges = {"skip": ranking.skips, "flow": ranking.flow, "back": ranking.back}
    plan = _plan(inspection, ranking)
    drawn = [
        *_bands(plan),
        *(_line(plan, edge, kind) for kind, found in edges.items() for edge in found),
        *_nodes(inspection, plan),
        *_labels(plan),
        _legend(inspection, ranking, plan),
    ]
    return _document(inspection, plan, drawn)


def _plan(inspection: Inspection, ranking: Ranking) -> routes.Plan:
    names = ["", *(site.site for site in inspection.sites), ""]
    sizes = [PILL, *(_size(site) for site in inspection.sites), PILL]
    columns = layout.columns(ranking, sizes, names)
    boxes = layout.boxes(columns, ranking, sizes)
    return routes.plan_routes(columns, boxes, [*ranking.flow, *ranking.skips, *ranking.back], MARGIN)


def _size(site: SiteRecord) -> tuple[float, float]:
    chips = len(site.dendrites)
    more = CHIP_HEIGHT * chips + (14 if site.gain is not None else 0) + (4 if chips else 0)
    return NODE_WIDTH, PLAIN_HEIGHT + more


def _document(inspection: Inspection, plan: routes.Plan, drawn: Iterable[str]) -> str:
    width, height = round(max(plan.width, 470.0)), round(plan.height + LEGEND)
    shift = round((width - plan.width) / 2)
    dark = f"@media screen and (prefers-color-scheme:dark){{{STYLE.format(**DARK)}}}"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="gk-net" role="img" width="{width}" height="{height}"'
            f' viewBox="0 0 {width} {height}">',
            f"<title>{_text(inspection.name)}</title>",
            f"<style>{FONTS}{STYLE.format(**LIGHT)}{dark}</style>",
            f"<defs>{_tip('gk-tip')}{_tip('gk-tip-skip')}</defs>",
            f'<rect class="gk-page" width="{width}" height="{height}"/>',
            f'<g transform="translate({shift},0)">',
            *drawn,
            "</g>",
            "</svg>",
        ]
    )


def _tip(name: str) -> str:
    head = '<path d="M0,0 L7,3.5 L0,7 L1.6,3.5 z"'
    size = 'markerWidth="7" markerHeight="7" refX="6.5" refY="3.5" markerUnits="userSpaceOnUse" orient="auto"'
    return f'<marker id="{name}" {size}>{head} class="{name}"/></marker>'


def _line(plan: routes.Plan, edge: Edge, kind: str) -> str:
    tip = "gk-tip" if kind == "flow" else "gk-tip-skip"
    return f'<path class="gk-{kind}" marker-end="url(#{tip})" d="{routes.path(plan, edge)}"/>'


def _nodes(inspection: Inspection, plan: routes.Plan) -> Iterable[str]:
    yield _pill("input", plan.boxes[INPUT])
    readers = _readers(inspection)
    labels = {node: row.label for column in plan.columns for row in column.rows for node in row.nodes}
    for number, site in enumerate(inspection.sites, start=1):
        yield _site(site, plan.boxes[number], labels[number], readers.get(site.site, []))
    yield _pill("output", plan.boxes[len(inspection.sites) + 1])


def _readers(inspection: Inspection) -> dict[str, list[str]]:
    """What feeds each site, by name; also the shortcuts that are not drawn."""
    found: dict[str, list[str]] = {}
    for edge in inspection.edges:
        found.setdefault(edge.target, []).append(edge.source or "the input")
    return found


def _pill(word: str, box: layout.Box) -> str:
    shape = _rect("gk-pill", box.x, box.y, box.width, box.height, box.height / 2)
    return f"<g>{shape}{_words('gk-text', box.x + box.width / 2, box.y + 17, word, 'middle')}</g>"


def _site(site: SiteRecord, box: layout.Box, block: str, readers: Sequence[str]) -> str:
    grafted = " gk-grafted" if site.dendrites else ""
    x, right = box.x + 10, box.x + box.width - 10
    parts = [
        f'<g class="gk-site{grafted}"><title>{_text(_tooltip(site, readers))}</title>',
        _rect("gk-box", box.x, box.y, box.width, box.height, 7),
        _words("gk-name", x, box.y + 18, _name(site.site, block)),
        _words("gk-text", x, box.y + 33, wording.elide(_call(site), CALL_LETTERS)),
        _words("gk-text", right, box.y + 33, wording.compact(site.parameters), "end"),
    ]
    y = box.y + PLAIN_HEIGHT
    for dendrite in site.dendrites:
        parts.append(_chip(dendrite, box.x + 8, y, box.width - 16))
        y += CHIP_HEIGHT
    if site.gain is not None:
        parts.append(_words("gk-gain", x, y + 10, f"gain {wording.gain_words(site.gain)}"))
    return "".join([*parts, "</g>"])


def _name(name: str, block: str) -> str:
    """A long name loses first what its band says already, then its middle."""
    if len(name) > NAME_LETTERS and block:
        name = wording.ELLIPSIS + name.removeprefix(block + ".")
    return wording.elide(name, NAME_LETTERS)


def _call(site: SiteRecord) -> str:
    return f"{site.operator.replace('conv_transpose', 'convT')} {wording.shape(site)}"


def _tooltip(site: SiteRecord, readers: Sequence[str]) -> str:
    shown = [*readers[:FEW], *([f"and {len(readers) - FEW} more"] if len(readers) > FEW else [])]
    return "\n".join(
        [
            site.site,
            f"{site.operator} {wording.shape(site)}",
            f"{site.parameters:,} parameters, {site.macs:,} multiply-adds",
            *(f"{wording.dendrite_words(site, d)} ({wording.options_words(d)})" for d in site.dendrites),
            *([f"reads {', '.join(shown)}"] if shown else []),
        ]
    )


def _chip(dendrite: DendriteRecord, x: float, y: float, width: float) -> str:
    """One kind of dendrites: a filled chip that begins with a small twig and ends with the mean strength."""
    count = f" ×{dendrite.count}"
    kind = wording.elide(dendrite.kind, CHIP_LETTERS - len(count)) + count
    parts = [
        _rect("gk-chip", x, y, width, CHIP_HEIGHT - 3, 4),
        f'<path class="gk-twig" d="M{x + 7:g},{y + 12:g} v-4 l-2.5,-3.5 m2.5,3.5 l2.5,-3.5 m-2.5,3.5"/>',
        _words("gk-chip-text", x + 15, y + 11.5, kind),
        _words("gk-chip-text", x + width - 6, y + 11.5, wording.strength(dendrite.strength), "end"),
    ]
    return "".join(parts)


def _bands(plan: routes.Plan) -> Iterable[str]:
    for x, y, width, height, _ in _blocks(plan):
        yield _rect("gk-band", x, y, width, height, 10)


def _labels(plan: routes.Plan) -> Iterable[str]:
    for x, y, _, height, label in _blocks(plan):
        words = _text(wording.elide(label, max(int((height - 16) / 7), 3)))
        turn = f"translate({x + 18:g},{y + 12:g}) rotate(-90)"
        yield f'<text class="gk-label" text-anchor="end" transform="{turn}">{words}</text>'


def _blocks(plan: routes.Plan) -> Iterable[tuple[float, float, float, float, str]]:
    """Each block's rectangle and label: consecutive rows of one column with the same label."""
    for column, frame in zip(plan.columns, plan.frames, strict=True):
        start = 0
        for end in range(1, len(column.rows) + 1):
            label = column.rows[start].label
            if end < len(column.rows) and column.rows[end].label == label:
                continue
            if label:
                top = plan.top + column.tops[start] - layout.BAND
                bottom = plan.top + column.tops[end - 1] + column.rows[end - 1].height + layout.BAND
                yield frame.left, top, frame.right - frame.left, bottom - top, label
            start = end


def _legend(inspection: Inspection, ranking: Ranking, plan: routes.Plan) -> str:
    """What colours mean, and what is left out."""
    grafted = sum(bool(site.dendrites) for site in inspection.sites)
    y = plan.height + 14
    words = [f"{len(inspection.sites)} sites"]
    words += [f"green: {grafted} with dendrites, their mean strength on the right"] * bool(grafted)
    words += ["blue: skip connections"] * bool(ranking.skips) + ["dashed: backwards"] * bool(ranking.back)
    words += [f"{ranking.hidden} longer skips not drawn"] * bool(ranking.hidden)
    lines = [" · ".join(part) for part in (words[:2], words[2:]) if part]  # one line would be cut off
    return "".join(_words("gk-text", MARGIN, y + 15 * index, line) for index, line in enumerate(lines))


def _rect(name: str, x: float, y: float, width: float, height: float, round_by: float) -> str:
    place = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"'
    return f'<rect class="{name}" {place} rx="{round_by:g}"/>'


def _words(name: str, x: float, y: float, words: str, anchor: str = "start") -> str:
    return f'<text class="{name}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{_text(words)}</text>'


def _text(words: str) -> str:
    # XML 1.0 has no way to write these, not even escaped.
    return escape(re.sub("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", words))
