"""Makes a network smaller by pruning it to a size in any cost, and trains it again."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

from torch import Tensor, nn

from graftkit import pruning
from graftkit.compressing import remembering
from graftkit.compressing.lab import Lab, Network
from graftkit.compressing.target import Amount
from graftkit.core.errors import PruningError
from graftkit.model import GraftedModel
from graftkit.pruning import Importance, Unit, Way, Width

FIRST = Way(least=0.25)  # by worth for price, as far as a quarter of each width; the next cut may take more
_TRIES = 8  # a cost that is measured takes as many looks at most
_CLOSER = 0.98  # what a look that found too much is followed by, besides the ratio


def shrunk(
    lab: Lab,
    network: Network,
    cost: Amount,
    counted: Unit,
    target: float,
    importance: Importance,
    key: str,
    seed: int,
    way: Way = FIRST,
) -> Network:
    """A copy of the network, pruned until it costs no more than a target, not trained since.

    Args:
        lab: whose training rows say what channels are worth; its journal remembers what was cut.
        network: stays as it is.
        cost, counted: what the target is in, and what pruning counts for it.
        target: in the cost's unit.
        importance: the measure of channels.
        key: of this cut among those of the run.
        seed: of the rows that are drawn.
        way: how the cut is spread; where a quarter of each width is too much, as in `FIRST`, less is kept.

    Raises PruningError where the target cannot be met.
    """
    model: GraftedModel | None = None  # unless the cut is remembered

    def cut() -> tuple[nn.Module, tuple[Width, ...]]:
        nonlocal model
        worth, own = lab.worths(network, importance, seed), (lab, network, cost, counted, target)
        try:
            module, widths, model = _cut(*own, worth, way)
        except PruningError:
            if way.least != FIRST.least:
                raise
            module, widths, model = _cut(*own, worth, replace(way, least=0.0))
        return module, widths

    told = f"cut {'evenly' if way.even else f'{way.least:.3f}'}{'' if way.priced else ' by worth'}"
    module, widths = remembering.module(lab.journal, f"{seed} {key} {told}", network.module, cut)
    return lab.network(replace(network.loaded, model=module), widths, epochs=network.epochs, model=model)


def _cut(
    lab: Lab, network: Network, cost: Amount, counted: Unit, target: float, worth: Mapping[str, Tensor], way: Way
) -> tuple[nn.Module, tuple[Width, ...], GraftedModel]:
    """A smaller module, the widths that it has left, and its graphs; each look at too much is followed by a closer."""
    example, wanted = lab.data.example(), 0.0
    for _ in range(_TRIES):
        module = copy.deepcopy(network.module)
        prices = pruning.prices(module, example, counted)
        wanted = wanted or prices.of(module) * target / cost.given(network.model)
        widths = pruning.cut(module, example, network.widths, worth, prices, wanted, way)
        model = lab.traced(replace(network.loaded, model=module))
        found = cost.given(model)
        if found <= target:
            return module, widths, model
        wanted = min(wanted, prices.of(module)) * max(0.5, target / found) * _CLOSER
    raise PruningError(
        f"{_amount(found)} {cost.unit} is the smallest that was found, and {_amount(target)} were asked for"
    )


def _amount(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.3g}"


def smallest(lab: Lab, network: Network, counted: Unit) -> Network:
    """The network with one unit left of each width, once it was proved that shapes alone bring it back.

    Raises PruningError where they do not.
    """
    module, example = copy.deepcopy(network.module), lab.data.example()
    last = {width.name: [len(width.units) - 1] for width in network.widths}
    with suppress(PruningError):  # of a layer nothing would be left
        pruning.keep(module, example, network.widths, last)
    pruning.proved(network.module, module, example)
    return lab.network(replace(network.loaded, model=module), ())


def check_reachable(cost: Amount, least: Network, target: float) -> None:
    """Raise PruningError where the smallest network costs more than a target."""
    found = cost.given(least.model)
    if found > target:
        raise PruningError(
            f"{_amount(found)} {cost.unit} is the smallest that pruning reaches, with one channel left of each layer,"
            f" and {_amount(target)} were asked for"
        )
