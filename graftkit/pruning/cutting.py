"""Takes channels out of a live module until it is as small as asked, by worth for price, by worth, or evenly."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from graftkit.core.errors import PruningError
from graftkit.pruning.graph import Channels, copied
from graftkit.pruning.importances import Importance
from graftkit.pruning.prices import Prices
from graftkit.pruning.widths import Width

_SPARE = 0.01  # of the target: less is not worth another look for what still fits
_REFILLS = 8  # units that come back at most
_LOOKS = 4  # widths that are tried for each, as prices of grouped layers are but about right
_HALVINGS = 7  # of the share that all widths keep alike
_GAP = 0.5  # of what has to go, at most, between two looks at prices, which change as channels go


@dataclass(frozen=True)
class Way:
    """How a cut is spread over the widths.

    Attributes:
        least: the share of its units that each width keeps; one unit stays in any case.
        priced: whether units leave by worth for price, and not by worth alone.
        even: each width keeps at least the same share, the largest that meets the target, whatever `least` says.
    """

    least: float = 0.0
    priced: bool = True
    even: bool = False


CHEAPEST = Way()


@dataclass
class _Lot:
    """A width that is being cut: what its units are worth, and which are left."""

    width: Width
    worth: Tensor
    units: list[int]
    channels: list[int]
    price: float = 0.0

    def take(self, channels: Channels, units: Sequence[int]) -> None:
        """These of its units leave."""
        gone = sorted(channel for unit in units for channel in self.width.units[unit])
        channels.take(self.width, [bisect_left(self.channels, channel) for channel in gone], len(units))
        left = set(gone)
        self.channels = [channel for channel in self.channels if channel not in left]
        self.units = [unit for unit in self.units if unit not in set(units)]


def worths(channels: Channels, widths: Sequence[Width], importance: Importance) -> dict[str, Tensor]:
    """What each unit of each width is worth, [units], by the width's name; gradients are those of one batch."""
    found = {}
    for width in widths:
        own = importance.of(channels, channels.group(width.name, range(_count(width))))
        found[width.name] = torch.stack([own[list(unit)].sum() for unit in width.units])
    return found


def cut(
    module: nn.Module,
    example: Any,
    widths: Sequence[Width],
    worth: Mapping[str, Tensor],
    prices: Prices,
    target: float,
    way: Way = CHEAPEST,
) -> tuple[Width, ...]:
    """Take units out of a module, in place, until it costs no more than a target; the widths that are left.

    What leaves last may be dear, and leave room; then units come back that fit, those first that are worth most (for
    their price).

    Args:
        module: with the widths as they are.
        example: its inputs.
        widths: what may shrink.
        worth: of each unit, by the width's name.
        prices: what is counted.
        target: in the unit of the prices.
        way: how the cut is spread.

    Raises PruningError where the target cannot be met, with the smallest that can; the module is as it was.
    """
    left = _Look.at(copied(module), example, widths, worth)
    floor = _floor(widths, _evenest(module, example, widths, prices, target) if way.even else way.least)
    while (gap := prices.of(left.channels.module) - target) > 0:
        left.price(prices)
        chosen = _cheapest(left.lots, floor, gap, priced=way.priced)
        if not chosen:
            raise PruningError(
                f"{prices.of(left.channels.module):,.0f} {prices.unit} is the smallest that pruning reaches, and"
                f" {target:,.0f} were asked for"
            )
        for lot, units in chosen:
            lot.take(left.channels, units)
    for _ in range(_REFILLS):
        fuller = _fuller(left, module, prices, target, priced=way.priced)
        if fuller is None:
            break
        left = fuller
    return keep(module, example, widths, {lot.width.name: lot.units for lot in left.lots})


def keep(
    module: nn.Module, example: Any, widths: Sequence[Width], units: Mapping[str, Sequence[int]]
) -> tuple[Width, ...]:
    """Leave of each width these units alone, in place; the widths that are left. Raises PruningError."""
    unvalued = {width.name: torch.zeros(len(width.units)) for width in widths}
    look = _Look.at(module, example, widths, unvalued)
    look.keep(units)
    return tuple(_left(lot) for lot in look.lots)


@dataclass
class _Look:
    """A module while it is being cut."""

    channels: Channels
    lots: list[_Lot]

    @staticmethod
    def at(module: nn.Module, example: Any, widths: Sequence[Width], worth: Mapping[str, Tensor]) -> _Look:
        lots = [_Lot(w, worth[w.name], list(range(len(w.units))), list(range(_count(w)))) for w in widths]
        return _Look(Channels(module, example), lots)

    def price(self, prices: Prices) -> None:
        """Find what a unit of each costs now."""
        for lot in self.lots:
            group = self.channels.group(lot.width.name, range(len(lot.channels)))
            lot.price = prices.channel(self.channels, group, len(lot.channels)) * len(lot.width.units[0])

    def keep(self, units: Mapping[str, Sequence[int]]) -> None:
        """All others leave."""
        for lot in self.lots:
            if gone := sorted(set(lot.units) - set(units[lot.width.name])):
                lot.take(self.channels, gone)


def _floor(widths: Sequence[Width], share: float) -> dict[str, int]:
    """How many units each width keeps of a share of them."""
    return {width.name: max(1, round(share * len(width.units))) for width in widths}


def _evenest(module: nn.Module, example: Any, widths: Sequence[Width], prices: Prices, target: float) -> float:
    """The largest share that all widths can keep, as rounded units of them."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        share, tried = (low + high) / 2, copied(module)
        keep(tried, example, widths, {name: range(count) for name, count in _floor(widths, share).items()})
        low, high = (share, high) if prices.of(tried) <= target else (low, share)
    return low


def _fuller(left: _Look, module: nn.Module, prices: Prices, target: float, *, priced: bool) -> _Look | None:
    """The cut with one unit more, of those that fit the first in the order of the way; None where none does."""
    spare = target - prices.of(left.channels.module)
    if spare <= _SPARE * target:
        return None
    left.price(prices)
    offers = []
    for lot in left.lots:
        gone = [
            (float(lot.worth[u]), u) for u in range(len(lot.width.units)) if u not in lot.units and lot.worth[u] > 0
        ]
        if gone and lot.price <= spare:
            worth, unit = max(gone)
            offers.append((_rank(worth, lot.price, priced), lot.width.name, unit))
    for _, name, unit in sorted(offers, reverse=True)[:_LOOKS]:
        fuller = _Look.at(copied(module), left.channels.example, [lot.width for lot in left.lots],
                          {lot.width.name: lot.worth for lot in left.lots})  # fmt: skip
        fuller.keep({lot.width.name: lot.units + [unit] * (lot.width.name == name) for lot in left.lots})
        if prices.of(fuller.channels.module) <= target:
            return fuller
    return None


def _rank(worth: float, price: float, priced: bool) -> float:
    return worth / max(price, 1e-9) if priced else worth


def _cheapest(
    lots: Sequence[_Lot], floor: Mapping[str, int], gap: float, *, priced: bool
) -> list[tuple[_Lot, list[int]]]:
    """The units that are worth least (for their price), as many as fill a part of the gap."""
    offers = sorted(
        (_rank(float(lot.worth[unit]), lot.price, priced), number, unit)
        for number, lot in enumerate(lots)
        for unit in lot.units
    )
    taken: dict[int, list[int]] = {}
    sum_ = 0.0
    for _, number, unit in offers:
        lot, own = lots[number], taken.get(number, [])
        if len(lot.units) - len(own) <= floor[lot.width.name]:
            continue
        if taken and sum_ + lot.price > _GAP * gap:
            break
        taken[number] = [*own, unit]
        sum_ += lot.price
    return [(lots[number], units) for number, units in taken.items()]


def _left(lot: _Lot) -> Width:
    """The width with its units numbered anew."""
    at = {channel: number for number, channel in enumerate(lot.channels)}
    units = tuple(tuple(at[channel] for channel in lot.width.units[unit]) for unit in lot.units)
    return Width(lot.width.name, lot.width.layers, units, lot.width.changes)


def _count(width: Width) -> int:
    return sum(len(unit) for unit in width.units)
