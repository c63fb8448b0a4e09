"""One size after another: pruned to it, trained, and dendrites tried there."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from graftkit import pruning, training
from graftkit.compressing import remembering
from graftkit.compressing.asked import Asked
from graftkit.compressing.contest import contest
from graftkit.compressing.lab import Lab, Network
from graftkit.compressing.spreading import spread
from graftkit.compressing.target import Target
from graftkit.core.compressions import GRAFTED, PRUNED, SCRATCH, NetworkRecord, SizeRecord
from graftkit.core.errors import PruningError
from graftkit.costs import COSTS

FRONT = tuple(0.05 ** (number / 9) for number in range(10))  # ten sizes from 100% to 5%
_DOWN = 0.75  # from one size to the next, where the smallest is looked for
_SMALLEST = 0.01
_HALVINGS = 3  # looks between the last size within the loss and the first beyond


@dataclass(frozen=True, eq=False)
class Reached:
    """A size that was reached.

    Attributes:
        record: its numbers.
        pruned: the network without dendrites, from which the next size is pruned.
        grafted: the one with dendrites, if they were worth training.
        scratch: the plain network of the same shape, if one was trained.
        seed: of all that was drawn.
    """

    record: SizeRecord
    pruned: Network
    grafted: Network | None
    scratch: Network | None
    seed: int

    @property
    def chosen(self) -> Network:
        """What would ship."""
        return self.grafted if self.record.chosen == "grafted" and self.grafted else self.pruned


@dataclass(frozen=True, eq=False)
class Descent:
    """Goes down in size, all else being the same.

    Attributes:
        lab: trains.
        asked: what was asked for.
        target: in what, and how small.
        given: the model as given.
        amount: what it has of the target's cost.
    """

    lab: Lab
    asked: Asked
    target: Target
    given: Network
    amount: float

    def reach(self, network: Network, amount: float, steps: int, seed: int) -> Reached:
        """Prune to an amount in so many steps, and let dendrites compete there. Raises PruningError."""
        where = f"{amount / self.amount:.2%}"
        network = self.down(network, amount, steps, seed)
        cost, counted, importance = self.target.cost, self.target.counted, self.importance
        if self.competes:
            met = contest(self.lab, network, COSTS[cost.name](), counted, importance, where, seed)
            pruned, grafted, record = met.pruned, met.grafted, met.record
        else:
            met, pruned, grafted, record = None, network, None, None
        scratch = self._scratch(pruned, where, seed) if self.asked.scratch else None
        sure = met is not None and met.sure and grafted is not None
        size = SizeRecord(
            share=amount / self.amount,
            amount=cost.given((grafted if sure and grafted else pruned).model),
            pruned=row(PRUNED, pruned),
            grafted=None if grafted is None else row(GRAFTED, grafted),
            scratch=None if scratch is None else row(SCRATCH, scratch),
            contest=record,
            chosen="grafted" if sure else "pruned",
        )
        return Reached(size, pruned, grafted, scratch, seed)

    def down(self, network: Network, amount: float, steps: int, seed: int) -> Network:
        """Prune in steps of the same share, training after each."""
        where, cost, journal = f"{amount / self.amount:.2%}", self.target.cost, self.lab.journal
        begin = remembering.number(journal, f"{seed} {where} begin", lambda: cost.given(network.model))
        for step in range(1, steps + 1):
            goal = begin * (min(1.0, amount / begin) ** (step / steps))
            self.lab.observer.on_stage(f"pruning to {goal:,.0f} {cost.unit}")
            name = f"step {step}" if steps > 1 else "pruning"
            network = spread(self.lab, network, cost, self.target.counted, goal, self.importance, where, name, seed)
            network = self.lab.trained(network, where, name, (self.epochs,), seed)
        return network

    def smallest(self, seed: int) -> list[Reached]:
        """All sizes that were looked at, in that order, while the smallest was sought within the loss."""
        network, found, share, beyond = self.given, list[Reached](), 1.0, 0.0
        while share * _DOWN >= _SMALLEST and not beyond:
            reached = self._tried(network, share * _DOWN * self.amount, seed, found)
            if reached is None:
                beyond = share * _DOWN
            else:
                share, network = share * _DOWN, reached.pruned
        for _ in range(_HALVINGS if beyond else 0):
            middle = math.sqrt(share * beyond)
            reached = self._tried(network, middle * self.amount, seed, found)
            if reached is None:
                beyond = middle
            else:
                share, network = middle, reached.pruned
        return found

    def best_within(self, found: Sequence[Reached]) -> int:
        """Which of the sizes is the smallest within the loss, of those alike the best. Raises PruningError."""
        fitting = [number for number, one in enumerate(found) if self._fits(one)]
        if fitting:
            return min(fitting, key=lambda n: (found[n].record.amount, -found[n].chosen.measured.validation))
        nearest = min(found, key=self._loss, default=None)
        told = "" if nearest is None else (
            f"; the nearest had {nearest.record.amount:,.0f} {self.target.cost.unit} and lost"
            f" {100 * self._loss(nearest):.2f}"
        )  # fmt: skip
        raise PruningError(f"no smaller model within {self.asked.max_loss:g} points was found{told}")

    def front(self, seed: int) -> list[Reached]:
        """The whole curve, each size pruned from the one before; it ends where nothing smaller is left."""
        network, found = self.given, []
        for share in FRONT:
            try:
                found.append(self.reach(network, share * self.amount, 1, seed))
            except PruningError as error:
                if not found:
                    raise
                self.lab.observer.on_warning(f"the front ends at {found[-1].record.share:.1%}: {error}")
                break
            network = found[-1].pruned
        return found

    @property
    def competes(self) -> bool:
        """Whether dendrites are tried: what they cost has to be known one by one."""
        return self.asked.dendrites and self.target.cost.name in COSTS

    @property
    def importance(self) -> pruning.Importance:
        return pruning.IMPORTANCES.find(self.asked.importance)

    @property
    def epochs(self) -> int:
        """Of each step."""
        return self.lab.settings.epochs

    def _tried(self, network: Network, amount: float, seed: int, found: list[Reached]) -> Reached | None:
        """What is reached at an amount, which is noted; None where that cannot be, or loses too much."""
        try:
            reached = self.reach(network, amount, 1, seed)
        except PruningError:
            return None
        found.append(reached)
        return reached if self._fits(reached) else None

    def _fits(self, reached: Reached) -> bool:
        return self._loss(reached) <= (self.asked.max_loss or 0.0) / 100

    def _loss(self, reached: Reached) -> float:
        return self.given.measured.validation - reached.chosen.measured.validation

    def _scratch(self, network: Network, where: str, seed: int) -> Network:
        """A plain network of this shape, trained from fresh weights, on the labels alone, for as long."""
        module = copy.deepcopy(network.module)
        with training.seeded(seed):
            left = training.fresh(module)
        if left:
            self.lab.observer.on_warning(
                f"from scratch {', '.join(left[:3])} begin{'s' * (len(left) == 1)} as normal numbers with the mean and"
                " spread of the trained ones: no layer says how"
            )
        plain = self.lab.network(replace(network.loaded, model=module), ())
        teacher, self.lab.teacher = self.lab.teacher, None
        try:
            return self.lab.trained(plain, where, "from scratch", (network.epochs,), seed)
        finally:
            self.lab.teacher = teacher


def row(name: str, network: Network) -> NetworkRecord:
    """What is known of a network before its file is measured."""
    own = network.measured
    return NetworkRecord(name, own.validation, own.test, own.parameters, own.macs, epochs=network.epochs)


def knee(sizes: list[SizeRecord]) -> int:
    """Which of a front's sizes bends it most: farthest above the line from its first to its last, by log size.

    Satopaa et al. 2011, Finding a "Kneedle" in a Haystack, without its smoothing.
    """
    if len(sizes) < 3:
        return len(sizes) - 1
    x = [math.log(size.share) for size in sizes]
    y = [size.best.validation for size in sizes]
    low, high = min(y), max(y)
    along = [(value - x[-1]) / (x[0] - x[-1]) for value in x]
    up = [(value - low) / (high - low) if high > low else 1.0 for value in y]
    return max(range(len(sizes)), key=lambda number: (up[number] - along[number], number))
