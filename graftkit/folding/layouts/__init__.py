"""Layouts: how a grafted site is written, each a function that changes an ONNX graph in place; and the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx

from graftkit.core.errors import ExportError
from graftkit.core.table import Table
from graftkit.folding.layouts.depthwise import depthwise
from graftkit.folding.layouts.portable import portable
from graftkit.folding.layouts.sites import SiteNodes, grafted_sites
from graftkit.folding.layouts.wide import wide

__all__ = ["BRANCHES", "LAYOUTS", "arrange", "grafted_sites", "portable"]

Layout = Callable[[onnx.GraphProto, SiteNodes], bool]  # returns whether it changed anything


def _branches(graph: onnx.GraphProto, site: SiteNodes) -> bool:
    """As it is folded: the site's own call, and each dendrite beside it."""
    return False


BRANCHES = "branches"
LAYOUTS: Table[Layout] = Table(
    "layout",
    {BRANCHES: _branches, "wide": wide, "depthwise": depthwise},
    ExportError,
)


def arrange(model: onnx.ModelProto, layouts: Mapping[str, str]) -> tuple[str, ...]:
    """Write sites in other layouts, in place, by site key; those that are not named stay branches.

    Returns the sites that changed. Raises ExportError for a layout that there is not.
    """
    wanted = {site: LAYOUTS.find(name) for site, name in layouts.items()}
    found = [site for site in grafted_sites(model.graph) if site.site in wanted]
    return tuple(site.site for site in found if wanted[site.site](model.graph, site))
