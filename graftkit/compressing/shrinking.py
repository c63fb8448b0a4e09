"""Makes a network smaller by pruning it to a size in any cost, and trains it again."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from graftkit import pruning
from graftkit.compressing.lab import Lab, Network
from graftkit.compressing.target import Amount
from graftkit.core.errors import PruningError
from graftkit.pruning import Importance, Unit

_LEAST = 0.25  # of its units each width keeps in one cut; the next may take more
_TRIES = 8  # a cost that is measured takes as many looks at most
_CLOSER = 0.98  # what a look that found too much is followed by, besides the ratio


def shrunk(
    lab: Lab, network: Network, cost: Amount, counted: Unit, target: float, importance: Importance, seed: int
) -> Network:
    """A copy of the network, pruned until it costs no more than a target, not trained since.

    Args:
        lab: whose training rows say what channels are worth.
        network: stays as it is.
        cost, counted: what the target is in, and what pruning counts for it.
        target: in the cost's unit.
        importance: the measure of channels.
        seed: of the rows that are drawn.

    Raises PruningError where the target cannot be met.
    """
    worth = lab.worths(network, importance, seed)
    ways = [partial(_shrunk, lab, network, cost, counted, target, worth, least) for least in (_LEAST, 0.0)]
    try:
        return ways[0]()
    except PruningError:
        return ways[1]()


def _shrunk(
    lab: Lab, network: Network, cost: Amount, counted: Unit, target: float, worth: Mapping[str, Tensor], least: float
) -> Network:
    example, wanted = lab.data.example(), 0.0
    for _ in range(_TRIES):
        module = copy.deepcopy(network.module)
        prices = pruning.prices(module, example, counted)
        wanted = wanted or prices.of(module) * target / cost.given(network.model)
        widths = pruning.cut(module, example, network.widths, worth, prices, wanted, least=least)
        smaller = lab.network(replace(network.loaded, model=module), widths, epochs=network.epochs)
        found = cost.given(smaller.model)
        if found <= target:
            return smaller
        wanted = min(wanted, prices.of(module)) * max(0.5, target / found) * _CLOSER
    raise PruningError(f"{found:,.0f} {cost.unit} is the smallest that was found, and {target:,.0f} were asked for")


def check_reachable(lab: Lab, network: Network, cost: Amount, counted: Unit, target: float) -> None:
    """Raise PruningError where the network with one unit left of each width costs more than a target."""
    module, example = copy.deepcopy(network.module), lab.data.example()
    worth = {width.name: torch.ones(len(width.units)) for width in network.widths}
    with suppress(PruningError):  # nothing is as small as zero
        pruning.cut(module, example, network.widths, worth, pruning.prices(module, example, counted), 0.0)
    least = cost.given(lab.traced(replace(network.loaded, model=module)))
    if least > target:
        raise PruningError(
            f"{least:,.0f} {cost.unit} is the smallest that pruning reaches, with one channel left of each layer, and"
            f" {target:,.0f} were asked for"
        )
