"""Spends a budget: of all that was tried, the neurons' dendrites that are worth most for what they cost."""

from __future__ import annotations

import heapq
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from graftkit.core.values import Spending, ValueRecord
from graftkit.costs import Budget
from graftkit.model import GraftedModel
from graftkit.plan import Graft
from graftkit.training import Worth

_LEAST = 1e-3  # of the allowance: what costs less, as a clock may say, counts as so much
_FREE = 1e-9
_TRIES, _ABOUT = 8, 1.5  # how often more is tried, and how much more than is left it may seem to cost
_EACH = 16  # up to so many neurons every number of them is an offer; of more, some numbers


@dataclass(frozen=True)
class Offer:
    """One dendrite as it may be bought: for no neuron, or for the best so many.

    Attributes:
        worth: for each number of neurons, beginning with none, what the dendrite is worth to them all.
        price: for each, what it costs.
    """

    worth: tuple[float, ...]
    price: tuple[float, ...]


@dataclass(frozen=True)
class _Lot:
    """One dendrite of the trial: its neurons in the order in which they are bought, and what so many of them cost."""

    worth: Worth
    sure: list[float]
    order: list[int]
    counts: list[int]
    prices: list[float]

    def offer(self) -> Offer:
        """What may be bought: as many neurons as pay, or all, with what that is worth to those that it harms.

        In bytes all can cost less than some.
        """
        steps = [n for n in self.counts if n <= len(self.order)]
        worth = [0.0, *(sum(self.sure[neuron] for neuron in self.order[:n]) for n in steps)]
        prices = [0.0, *self.prices[: len(steps)]]
        if self._whole():
            worth, prices = [*worth, sum(self.sure)], [*prices, self.prices[-1]]
        return Offer(tuple(worth), tuple(prices))

    def _whole(self) -> bool:
        """Whether all may be bought though not all pay."""
        return self.worth.graft.neurons is None and len(self.order) < len(self.sure)

    def neurons(self, step: int) -> tuple[int, ...]:
        """Those that are served with a step of the offer."""
        if self._whole() and step > sum(n <= len(self.order) for n in self.counts):
            return tuple(range(len(self.sure)))
        return tuple(sorted(self.order[: (0, *self.counts)[step]]))

    def graft(self, step: int) -> Graft:
        """The dendrite for those neurons."""
        neurons = self.neurons(step)
        return replace(self.worth.graft, neurons=None if len(neurons) == len(self.sure) else neurons)

    def record(self, step: int, spent: float) -> ValueRecord:
        """What was found and done."""
        graft, mean, error = self.worth.graft, tuple(self.worth.mean.tolist()), tuple(self.worth.error.tolist())
        kept, sure = self.neurons(step), tuple(self.sure)
        return ValueRecord(graft.site, graft.kind, graft.options, mean, error, sure, self.prices[-1], kept, spent)


def spend(
    model: GraftedModel, worths: Sequence[Worth], budget: Budget, *, epochs: int
) -> tuple[tuple[Graft, ...], Spending]:
    """The grafts that a budget is best spent on, and how that was found.

    A neuron counts with what `surely` leaves of its dendrite's worth; where nothing is left, it is not bought. What is
    bought is priced once more all together, and halved from the least worth for its price on until it fits; then more
    is tried while there is something left, as what was priced among all that was tried may cost less without them.

    Args:
        model: the model as given, nothing of the trial grafted.
        worths: what a trial found.
        budget: what may be spent.
        epochs: of the trial.
    """
    given = budget.cost.given(model)
    allowance = budget.allowance(given)
    lots = _lots(model, worths, budget, least=_LEAST * allowance)
    offers = [lot.offer() for lot in lots]
    taken, spent, refused = choose(offers, allowance), 0.0, set[tuple[int, ...]]()
    while grafts := tuple(lot.graft(step) for lot, step in zip(lots, taken, strict=True) if step):
        spent = budget.cost.added(model, grafts)
        if spent <= allowance:
            break
        refused.add(tuple(taken))
        taken, spent = _with_less(offers, taken), 0.0
    for _ in range(_TRIES if budget.cost.exact else 0):
        other = _with_more(offers, taken, allowance - spent, refused)
        if other is None:
            break
        wanted = tuple(lot.graft(step) for lot, step in zip(lots, other, strict=True) if step)
        cost = budget.cost.added(model, wanted)
        if cost <= allowance:
            grafts, taken, spent = wanted, other, cost
        else:
            refused.add(tuple(other))
    steps = zip(lots, offers, taken, strict=True)
    values = tuple(lot.record(step, offer.price[step]) for lot, offer, step in steps)
    return grafts, Spending(budget.cost.name, budget.cost.unit, given, allowance, spent, epochs, values)


def _lots(model: GraftedModel, worths: Sequence[Worth], budget: Budget, *, least: float) -> list[_Lot]:
    counts = [_counts(len(one.mean)) for one in worths]
    prices = budget.cost.prices(model, [one.graft for one in worths], counts)
    lots = []
    for one, numbers, price in zip(worths, counts, prices, strict=True):
        sure = surely(one).tolist()
        order = [n for n in sorted(range(len(sure)), key=lambda n: -sure[n]) if sure[n] > 0]
        lots.append(_Lot(one, sure, order, numbers, [max(each, least) for each in price]))
    return lots


def surely(worth: Worth) -> Tensor:
    """What a dendrite is worth to each neuron, less the standard error of that, [neurons].

    Neurons of one dendrite lend each other what they know: each is drawn towards their mean, the more so the less their
    worths differ beyond their errors (empirical Bayes; Efron and Morris 1975, Data Analysis Using Stein's Estimator).
    A neuron that is not served has no worth and no error.
    """
    served = worth.error > 0
    mean, variance = worth.mean[served], worth.error[served].square()
    if not served.any() or not torch.isfinite(variance).all():
        return worth.mean - worth.error
    centre, centre_error = mean.mean(), worth.whole_error / len(mean)
    spread = (mean.var() - variance.mean()).clamp(min=0) if len(mean) > 1 else variance.new_zeros(())
    own = spread / (spread + variance)
    found = torch.zeros_like(worth.mean)
    error = (own * variance + ((1 - own) * centre_error).square()).sqrt()
    found[served] = centre + own * (mean - centre) - error
    return found


def choose(offers: Sequence[Offer], allowance: float) -> list[int]:
    """Which step of each offer to take: again and again the one that adds most worth for its price and still fits."""
    taken = [0] * len(offers)
    left = allowance
    # The best step of each offer as it was when last looked at: it stays the best as long as it fits.
    heap = [best for number, offer in enumerate(offers) if (best := _best(offer, number, 0, left))]
    heapq.heapify(heap)
    while heap:
        _, number, step = heapq.heappop(heap)
        offer, now = offers[number], taken[number]
        price = offer.price[step] - offer.price[now]
        if price <= left:
            left -= price
            taken[number] = step
        if found := _best(offer, number, taken[number], left):
            heapq.heappush(heap, found)
    return taken


def _best(offer: Offer, number: int, now: int, left: float) -> tuple[float, int, int] | None:
    """(minus the worth for its price, the offer, the step) of the best further step that fits."""
    found = None
    for step in range(now + 1, len(offer.worth)):
        worth, price = offer.worth[step] - offer.worth[now], offer.price[step] - offer.price[now]
        density = worth / max(price, _FREE)
        if worth > 0 and price <= left and (found is None or -density < found[0]):
            found = (-density, number, step)
    return found


def _with_less(offers: Sequence[Offer], taken: Sequence[int]) -> list[int]:
    """The same with half of the steps of the offer that is worth least for its price."""
    bought = [number for number, step in enumerate(taken) if step]
    least = min(bought, key=lambda n: offers[n].worth[taken[n]] / max(offers[n].price[taken[n]], _FREE))
    return [step // 2 if number == least else step for number, step in enumerate(taken)]


def _with_more(
    offers: Sequence[Offer], taken: Sequence[int], left: float, refused: Set[tuple[int, ...]]
) -> list[int] | None:
    """The same with the further step that adds most worth for its price and may fit; None where none does."""
    found: list[tuple[float, list[int]]] = []
    for number, (offer, now) in enumerate(zip(offers, taken, strict=True)):
        for step in range(now + 1, len(offer.worth)):
            worth, price = offer.worth[step] - offer.worth[now], offer.price[step] - offer.price[now]
            other = [*taken[:number], step, *taken[number + 1 :]]
            if worth > 0 and price <= _ABOUT * left and tuple(other) not in refused:
                found.append((worth / max(price, _FREE), other))
    return max(found)[1] if found else None


def _counts(neurons: int) -> list[int]:
    """The numbers of neurons that a dendrite is offered for, the last for all."""
    found = list(range(1, min(neurons, _EACH) + 1))
    while found[-1] < neurons:
        found.append(min(neurons, found[-1] * 5 // 4))
    return found
