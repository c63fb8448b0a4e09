"""Lets dendrites compete with the channels that they would replace: both cost the same, and validation decides."""

from __future__ import annotations

from dataclasses import dataclass, replace

from graftkit.compressing import remembering
from graftkit.compressing.lab import Lab, Network
from graftkit.compressing.spreading import spread
from graftkit.core.compressions import ContestRecord
from graftkit.core.errors import PlanError, PruningError
from graftkit.costs import Budget, Cost
from graftkit.fitting import difference_error, trial
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
    lab: Lab, network: Network, cost: Cost, counted: Unit, importance: Importance, where: str, seed: int
) -> Contest:
    """Train the network on, and a smaller one with dendrites that together cost no more than it does.

    Both are trained for a step. Then what dendrites are worth is what `augment --budget` measures, Shapley's shares of
    the loss on validation rows after a trial; what the channels are worth is how much more loss the smaller network
    has. Where dendrites take away more for what they cost, they are grafted. Both are trained for another step; what a
    trial learned is thrown away.

    Args:
        lab: trains.
        network: pruned and trained; it is trained in place.
        cost, counted, importance, seed: as `spread` takes them.
        where: which of the run's networks it is, for the journal.
    """
    step, less = (lab.settings.epochs,), f"{where} less"
    amount = remembering.number(lab.journal, f"{seed} {where} amount", lambda: cost.given(network.model))
    smaller = _smaller(lab, network, cost, counted, amount * (1 - SLICE), importance, less, seed)
    pruned = lab.trained(network, where, "pruned", step, seed)
    grafted, record = None, None
    if smaller is not None:
        smaller = lab.trained(smaller, less, "fewer channels", step, seed)
        grafted, record = _grafted(lab, pruned, smaller, cost, amount, less, seed)
    pruned = lab.trained(pruned, f"{where} on", "pruned", step, seed)
    if grafted is None or record is None:
        return Contest(pruned, None, record, sure=False)
    gain, device = grafted.measured.validation - pruned.measured.validation, next(pruned.model.parameters()).device
    ours, theirs = (answers(one.model, lab.data.validation, device) for one in (grafted, pruned))
    error = difference_error(lab.metric, ours, theirs)
    sure = gain > 0 and error is not None and gain > lab.settings.margin * error * (1 + 1e-6)
    return Contest(pruned, grafted, replace(record, gain=gain, error=error), sure=sure)


def _smaller(
    lab: Lab, network: Network, cost: Cost, counted: Unit, target: float, importance: Importance, key: str, seed: int
) -> Network | None:
    """The network without the channels that dendrites may replace; None where none may go."""
    try:
        return spread(lab, network, cost, counted, target, importance, key, "cut", seed)
    except PruningError:
        return None


def _grafted(
    lab: Lab, pruned: Network, smaller: Network, cost: Cost, amount: float, where: str, seed: int
) -> tuple[Network | None, ContestRecord | None]:
    """The smaller network with dendrites, trained; None where they are not worth more than the channels."""
    left = remembering.number(lab.journal, f"{seed} {where} amount", lambda: cost.given(smaller.model))
    if left >= amount:  # a clock may say so
        return None, None
    channels = max(0.0, lab.loss(smaller.model) - lab.loss(pruned.model)) / (amount - left)
    try:
        plan, _ = plan_cycle(smaller.model.traced, rule=Gradient(), every=True)
    except PlanError:  # no site takes a dendrite
        return None, None
    fitter = lab.fitter(smaller, where)
    tried, grafts, spending = trial(fitter, plan.grafts, Gradient(), Budget(cost, None, amount - left), seed)
    lab.check_ended(tried)
    if spending is None or not grafts:
        return None, ContestRecord(None, channels, 0)
    kept = [value for value in spending.values if value.kept]
    worth = sum(value.sure[neuron] for value in kept for neuron in value.kept)
    record = ContestRecord(worth / max(sum(value.spent for value in kept), 1e-9), channels, len(grafts))
    if record.dendrites is not None and record.dendrites <= channels:
        return None, record
    arm = fitter.grafted_arm(grafts, Gradient(), seed)
    lab.check_ended(arm)
    measured = fitter.measure_at(arm.best_trained or arm.best)
    epochs = smaller.epochs + sum(phase.epochs for phase in arm.history)
    return replace(smaller, measured=measured, epochs=epochs), record
