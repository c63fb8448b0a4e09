"""Costs that are counted on dendrites without weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from graftkit import surgery
from graftkit.contracts import Dendrite
from graftkit.costs.cost import Counts, Prices
from graftkit.dendrites import build_dendrite
from graftkit.model import GraftedModel
from graftkit.plan import Graft

Count = Callable[[Dendrite], int]


def added(model: GraftedModel, grafts: Sequence[Graft], count: Count) -> float:
    """The sum over the dendrites that the grafts ask for."""
    return float(sum(map(count, surgery.blank(model, grafts, build_dendrite))))


def prices(model: GraftedModel, grafts: Sequence[Graft], counts: Counts, count: Count) -> Prices:
    """For each graft the count where it serves so many neurons."""
    found = []
    for number, (graft, wanted) in enumerate(zip(grafts, counts, strict=True)):
        before = [each for each in grafts[:number] if each.site == graft.site]
        found.append([_price(model, before, serving(graft, n, wanted[-1]), count) for n in wanted])
    return found


def serving(graft: Graft, neurons: int, of: int) -> Graft:
    """The graft for the first of a site's neurons."""
    return replace(graft, neurons=None if neurons == of else tuple(range(neurons)))


def _price(model: GraftedModel, before: Sequence[Graft], graft: Graft, count: Count) -> float:
    return float(count(surgery.blank(model, [*before, graft], build_dendrite)[-1]))
