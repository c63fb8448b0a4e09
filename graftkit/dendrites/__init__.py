"""Dendrite kinds: the table, and how options given as text become a kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from graftkit.contracts import Dendrite, DendriteKind
from graftkit.core.errors import PlanError, did_you_mean
from graftkit.core.records import Options
from graftkit.core.sites import Site
from graftkit.core.table import Table
from graftkit.dendrites.activations import ACTIVATIONS
from graftkit.dendrites.context import Context
from graftkit.dendrites.depthwise import Depthwise
from graftkit.dendrites.full import Full
from graftkit.dendrites.lowrank import Lowrank
from graftkit.dendrites.pointwise import Pointwise
from graftkit.plan import Graft

DENDRITES: Table[type[DendriteKind]] = Table(
    "dendrite kind",
    {kind.name: kind for kind in (Full, Pointwise, Lowrank, Depthwise, Context)},
    PlanError,
)


def make_kind(name: str, options: Mapping[str, Any]) -> DendriteKind:
    """The kind called `name` with these options. Raises PlanError for an unknown kind, option or value."""
    kind = DENDRITES.find(name)
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    for option in options:
        if option not in known:
            names = ", ".join(known) or "none"
            raise PlanError(f"{name} has no option {option!r}; there are {names}.{did_you_mean(option, known)}")
    return kind(**{option: _convert(name, known[option].type, option, value) for option, value in options.items()})


def parse_kind(text: str) -> DendriteKind:
    """A kind from text such as `context:units=2,mode=add`. Raises PlanError."""
    name, _, rest = text.partition(":")
    options: dict[str, str] = {}
    for part in filter(None, rest.split(",")):
        option, equals, value = part.partition("=")
        if not equals:
            raise PlanError(f"{text!r}: write options as name=value, as in 'context:units=2,mode=add'")
        options[option.strip()] = value.strip()
    return make_kind(name.strip(), options)


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


def _convert(kind: str, annotation: Any, option: str, value: Any) -> Any:
    if annotation in ("int", int):
        try:
            return int(value)
        except (TypeError, ValueError):
            raise PlanError(f"{kind}: {option} must be a whole number, not {value!r}") from None
    return str(value)


__all__ = [
    "ACTIVATIONS",
    "DENDRITES",
    "Context",
    "Depthwise",
    "Full",
    "Lowrank",
    "Pointwise",
    "build_dendrite",
    "make_kind",
    "options_of",
    "parse_kind",
]
