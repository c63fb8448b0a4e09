"""Lets dendrites compete with the channels that they would replace: both cost the same, and validation decides."""

from __future__ import annotations

from dataclasses import dataclass, replace

from graftkit.compressing.lab import Lab, Network
from graftkit.compressing.shrinking import shrunk
from graftkit.core.compressions import ContestRecord
from graftkit.core.errors import PlanError, PruningError
from graftkit.costs import Budget, Cost
from graftkit.fitting import TRIAL, difference_error, trial
from graftkit.planning import plan_cycle
from graftkit.pruning import Importance, Unit
from graftkit.rules import Gradient
from graftkit.training import answers

SLICE = 0.08  # of a network's cost that channels give up for dendrites


@dataclass(frozen=True, eq=False)
class Contest:
    """Both networks of one size, trained for as long.

    Attributes:
        pruned: channels alone.
        grafted: fewer channels, and dendrites; None where dendrites were not worth more than those channels.
        record: what was found.
        sure: whether the grafted one is better on validation by more than the margin.
    """

    pruned: Network
    grafted: Network | None
    record: ContestRecord | None
    sure: bool


def contest(
    lab: Lab, network: Network, cost: Cost, counted: Unit, target: float, importance: Importance, where: str, seed: int
) -> Contest:
    """Train the network on, and a smaller one with dendrites that together cost no more than the target.

    What dendrites are worth is what `augment --budget` measures, Shapley's shares of the loss on validation rows after
    a trial; what the channels are worth is the loss without them, once the rest has learned to do without. Where
    dendrites take away more for what they cost, they are trained.

    Args:
        lab: trains.
        network: pruned and trained; it costs no more than `target`.
        cost, counted, target, importance, seed: as `shrunk` takes them.
        where: which of the run's networks it is, for the journal.
    """
    epochs = lab.settings.epochs
    lengths = (epochs, max(1, epochs // TRIAL), epochs)
    before, amount = lab.loss(network.model), cost.given(network.model)
    smaller = _smaller(lab, network, cost, counted, amount * (1 - SLICE), importance, seed)
    if smaller is None:
        pruned = lab.trained(network, where, "pruned", lengths, seed)
        return Contest(pruned, None, None, sure=False)
    smaller = lab.trained(smaller, f"{where} less", "fewer channels", lengths[:1], seed)
    slice_ = amount - cost.given(smaller.model)
    channels = max(0.0, lab.loss(smaller.model) - before) / slice_
    grafted, worth, bought = _grafted(lab, smaller, cost, target, f"{where} less", channels, seed)
    pruned = lab.trained(network, where, "pruned", lengths, seed)
    record = ContestRecord(worth, channels, bought)
    if grafted is None:
        return Contest(pruned, None, record, sure=False)
    gain, device = grafted.measured.validation - pruned.measured.validation, next(pruned.model.parameters()).device
    ours, theirs = (answers(one.model, lab.data.validation, device) for one in (grafted, pruned))
    error = difference_error(lab.metric, ours, theirs)
    sure = gain > 0 and error is not None and gain > lab.settings.margin * error * (1 + 1e-6)
    return Contest(pruned, grafted, replace(record, gain=gain, error=error), sure=sure)


def _smaller(
    lab: Lab, network: Network, cost: Cost, counted: Unit, target: float, importance: Importance, seed: int
) -> Network | None:
    """The network without the channels that dendrites may replace; None where none may go."""
    try:
        return shrunk(lab, network, cost, counted, target, importance, seed)
    except PruningError:
        return None


def _grafted(
    lab: Lab, network: Network, cost: Cost, target: float, where: str, channels: float, seed: int
) -> tuple[Network | None, float | None, int]:
    """The network with dendrites, what those bought are worth for each unit of what they cost, and how many grafts."""
    allowance = target - cost.given(network.model)
    try:
        plan, _ = plan_cycle(network.model.traced, rule=Gradient(), every=True)
    except PlanError:  # no site takes a dendrite
        return None, None, 0
    fitter = lab.fitter(network, where)
    tried, grafts, spending = trial(fitter, plan.grafts, Gradient(), Budget(cost, None, allowance), seed)
    lab.heard(fitter, tried)
    if spending is None or not grafts:
        return None, None, 0
    kept = [value for value in spending.values if value.kept]
    price = sum(value.spent for value in kept)
    worth = sum(value.sure[neuron] for value in kept for neuron in value.kept) / max(price, 1e-9)
    if worth <= channels:
        return None, worth, len(grafts)
    fitter.settings = replace(fitter.settings, cycles=1)
    arm = fitter.grafted_arm(grafts, Gradient(), seed)
    lab.heard(fitter, arm)
    best = arm.best_trained or arm.best
    measured = fitter.measure_at(best)
    lengths = sum(phase.epochs for phase in tried.history + arm.history)
    return replace(network, measured=measured, epochs=network.epochs + lengths), worth, len(grafts)
