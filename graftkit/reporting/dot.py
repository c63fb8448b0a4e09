"""The network as Graphviz DOT text, for those who draw or process it themselves."""

from __future__ import annotations

from collections.abc import Iterable

from graftkit.core.records import Inspection, SiteRecord
from graftkit.reporting import wording
from graftkit.reporting.ranks import Edge, numbered_edges

ACCENT = "#0b7a5d"
GRAFTED = "#e6f6ef"


def network_dot(inspection: Inspection) -> str:
    """The network of an inspection as a DOT digraph, with every edge; `dot -Tsvg` draws it.

    Nodes are "input", "output" and "site1", "site2", ... in the sites' order; names are in the labels.
    """
    output = len(inspection.sites) + 1
    lines = [
        f"digraph {quote(inspection.name)} {{",
        '  graph [fontname="Helvetica", ranksep=0.3];',
        '  node [shape=box, style="rounded,filled", fillcolor=white, color="#aab3bd", fontname="Helvetica"];',
        '  edge [color="#8d98a5"];',
        "  input [shape=oval];",
        "  output [shape=oval];",
        *(f"  site{number} [{_attributes(site)}];" for number, site in enumerate(inspection.sites, start=1)),
        *_edges(numbered_edges(inspection), output),
        "}",
    ]
    return "\n".join(lines) + "\n"


def quote(text: str) -> str:
    """A DOT string: in quotes, with quotes and backslashes escaped and line breaks spelled out."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\r\n", "\n")
    # A zero byte would end the string for Graphviz.
    return '"' + escaped.replace("\n", "\\n").replace("\r", "\\n").replace("\0", "\ufffd") + '"'


def _attributes(site: SiteRecord) -> str:
    lines = [site.site, f"{site.operator} {wording.shape(site)}", f"{wording.compact(site.parameters)} parameters"]
    lines += [wording.dendrite_words(site, dendrite) for dendrite in site.dendrites]
    lines += [f"gain {wording.gain_words(site.gain)}"] * (site.gain is not None)
    style = f', color="{ACCENT}", fillcolor="{GRAFTED}", penwidth=2' if site.dendrites else ""
    return f"label={quote(chr(10).join(lines))}{style}"


def _edges(edges: Iterable[Edge], output: int) -> Iterable[str]:
    names = {0: "input", output: "output"}
    for source, target in edges:
        yield f"  {names.get(source, f'site{source}')} -> {names.get(target, f'site{target}')};"
