"""How a cut is spread over the layers: by worth, for price or alone, or more evenly, as a short training decides."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

from graftkit.compressing import remembering
from graftkit.compressing.lab import Lab, Network
from graftkit.compressing.shrinking import FIRST, shrunk
from graftkit.compressing.target import Amount
from graftkit.core.errors import PruningError
from graftkit.pruning import Importance, Unit, Way

_COUNTED = ("parameters", "macs", "size")  # a clock would take too many looks
_TRIAL = 4  # a trial takes one epoch in so many of a step's
_POWERS = (1, 1.25, 1.5, 2)  # of the share, where rounded widths cost too much with the one before


def spread(
    lab: Lab,
    network: Network,
    cost: Amount,
    counted: Unit,
    goal: float,
    importance: Importance,
    where: str,
    name: str,
    seed: int,
) -> Network:
    """A copy of the network that costs no more than a goal, not trained since.

    What channels are worth is measured one by one, while a layer can ill do without many at once. So the cut that takes
    those worth least for their price is tried beside one by worth alone, one in which no layer gives more than the
    share of its units that goes of the cost, and one in which all give alike. Each is trained for a short time, and the
    one with the least loss on validation rows is taken as it was before.

    Args:
        lab, network, cost, counted, importance, seed: as `shrunk` takes them.
        goal: in the cost's unit.
        where, name: which of the run's networks it becomes, for the journal.

    Raises PruningError where the target cannot be met.
    """
    key, own = f"{where} {name}", (lab, network, cost, counted, goal)
    first = shrunk(*own, importance, key, seed)
    share = goal / cost.given(network.model)
    if cost.name not in _COUNTED or share >= 1:
        return first
    cuts = list(_distinct([first, *_others(share, lambda way: shrunk(*own, importance, key, seed, way))]))
    if len(cuts) == 1:
        return first
    lab.observer.on_stage(f"trying {len(cuts)} ways to spread that over the layers")
    return cuts[int(remembering.number(lab.journal, f"{seed} {key} chosen way", lambda: _best(lab, cuts, key, seed)))]


def _others(share: float, cut: Callable[[Way], Network]) -> Iterator[Network]:
    """The cuts beside the first, as far as they can be made."""
    with suppress(PruningError):
        yield cut(replace(FIRST, priced=False))
    for power in _POWERS:
        with suppress(PruningError):
            yield cut(Way(least=share**power))
            break
    with suppress(PruningError):
        yield cut(Way(even=True))


def _distinct(cuts: Iterable[Network]) -> Iterator[Network]:
    """Those whose layers have not all the widths of an earlier one."""
    seen = []
    for cut in cuts:
        widths = [len(width.units) for width in cut.widths]
        if widths not in seen:
            seen.append(widths)
            yield cut


def _best(lab: Lab, cuts: Sequence[Network], key: str, seed: int) -> int:
    """Which loses least on validation rows after a short training; all are as they were before."""
    losses = []
    for cut in cuts:
        before = cut.model.snapshot()
        shape = "-".join(str(len(width.units)) for width in cut.widths)
        lab.trained(cut, f"{key} as {shape}", "short trial", (max(1, lab.settings.epochs // _TRIAL),), seed)
        losses.append(lab.loss(cut.model))
        cut.model.restore(before)
    return min(range(len(cuts)), key=lambda number: (math.isnan(losses[number]), losses[number]))
