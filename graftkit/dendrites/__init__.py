"""Dendrite kinds: the table, and how options given as text become a kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from graftkit.contracts import Dendrite, DendriteKind
from graftkit.core import options
from graftkit.core.errors import PlanError
from graftkit.core.options import Options
from graftkit.core.sites import Site
from graftkit.core.table import Table
from graftkit.dendrites.activations import ACTIVATIONS
from graftkit.dendrites.adapter import Adapter
from graftkit.dendrites.around import Around
from graftkit.dendrites.context import Context
from graftkit.dendrites.depthwise import Depthwise
from graftkit.dendrites.full import Full
from graftkit.dendrites.lowrank import Lowrank
from graftkit.dendrites.own import Own
from graftkit.dendrites.pointwise import Pointwise
from graftkit.dendrites.pooled import Pooled
from graftkit.plan import Graft

DENDRITES: Table[type[DendriteKind]] = Table(
    "dendrite kind",
    {kind.name: kind for kind in (Full, Pointwise, Lowrank, Depthwise, Context, Own, Around, Adapter, Pooled)},
    PlanError,
)


def make_kind(name: str, given: Mapping[str, Any]) -> DendriteKind:
    """The kind called `name` with these options. Raises PlanError for an unknown kind, option or value."""
    return options.make(DENDRITES, name, given)


def parse_kind(text: str) -> DendriteKind:
    """A kind from text such as `context:units=2,mode=add`. Raises PlanError."""
    return options.parse(DENDRITES, text)


def options_of(kind: DendriteKind) -> Options:
    """The kind's options as a plan keeps them."""
    return tuple(sorted(asdict(kind).items()))  # type: ignore[call-overload]


def build_dendrite(graft: Graft, site: Site, index: int) -> Dendrite:
    """The fresh dendrite that a graft asks for. Raises PlanError where it does not fit the site."""
    kind = make_kind(graft.kind, dict(graft.options))
    reason = kind.refuses(site)
    if reason:
        raise PlanError(f"{graft.kind} dendrites do not fit {site.key}: {reason}")
    return kind.build(site, index)


__all__ = [
    "ACTIVATIONS",
    "DENDRITES",
    "Adapter",
    "Around",
    "Context",
    "Depthwise",
    "Full",
    "Lowrank",
    "Own",
    "Pointwise",
    "Pooled",
    "build_dendrite",
    "make_kind",
    "options_of",
    "parse_kind",
]
