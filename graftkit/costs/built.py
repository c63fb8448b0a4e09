"""Costs that are counted on dendrites without weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graftkit import surgery
from graftkit.contracts import Dendrite
from graftkit.costs.cost import Counts, Prices
from graftkit.dendrites import build_dendrite
from graftkit.model import GraftedModel
from graftkit.plan import Graft


class Counted:
    """What all such costs share; each says what it counts on a dendrite."""

    def count(self, dendrite: Dendrite) -> int:
        """How much of it one dendrite has."""
        raise NotImplementedError

    def added(self, model: GraftedModel, grafts: Sequence[Graft]) -> float:
        """The sum over the dendrites that the grafts ask for."""
        return float(sum(map(self.count, surgery.blank(model, grafts, build_dendrite))))

    def prices(self, model: GraftedModel, grafts: Sequence[Graft], counts: Counts) -> Prices:
        """For each graft the count where it serves so many neurons."""
        found = []
        for number, (graft, wanted) in enumerate(zip(grafts, counts, strict=True)):
            index = len(model.plan.at(graft.site)) + sum(each.site == graft.site for each in grafts[:number])
            found.append([float(self.count(dendrite)) for dendrite in serving(model, graft, wanted, index)])
        return found


def serving(model: GraftedModel, graft: Graft, counts: Sequence[int], index: int = 0) -> list[Dendrite]:
    """The dendrite without weights, once for each number of neurons that it may serve; `index` are there before it."""
    site = model.traced.site(graft.site)
    return [surgery.without_weights(first(graft, n, counts[-1]), site, index, build_dendrite) for n in counts]


def first(graft: Graft, neurons: int, of: int) -> Graft:
    """The graft for the first of a site's neurons."""
    return replace(graft, neurons=None if neurons == of else tuple(range(neurons)))
