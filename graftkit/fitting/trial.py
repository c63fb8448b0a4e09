"""A short trial of many dendrites at once, which says what a budget is best spent on."""

from __future__ import annotations

from collections.abc import Sequence

from graftkit import training
from graftkit.core.values import Spending
from graftkit.costs import Budget
from graftkit.fitting.arms import Arm, Fitter
from graftkit.plan import Graft
from graftkit.spending import spend

TRIAL = 4  # a trial takes one epoch in so many of a phase's
_BATCHES = 20  # the standard error of a worth comes from their spread


def trial(
    fitter: Fitter, candidates: Sequence[Graft], budget: Budget, seed: int
) -> tuple[Arm, tuple[Graft, ...], Spending | None]:
    """The arm that tried all candidates at once, what the budget goes to, and how that was found.

    What a dendrite is worth is measured on the validation rows, which the model as given has not learned from, in the
    best state of the trial. Nothing is bought where the trial was interrupted or diverged.
    """
    arm = fitter.trial_arm(candidates, max(1, fitter.settings.epochs // TRIAL), seed)
    if arm.interrupted or arm.best_trained is None:
        return arm, (), None
    fitter.observer.on_stage("valuing dendrites")
    fitter.put_back(arm.best_trained.plan, arm.best_trained.state)
    rows = fitter.data.validation
    size = 64 if not hasattr(rows, "__len__") else max(1, min(256, len(rows) // _BATCHES))
    first = len(fitter.given_plan.grafts)
    worths = training.attribute(fitter.model, training.batches(rows, size), fitter.criterion, first=first)
    fitter.put_back(fitter.given_plan, fitter.given)
    epochs = sum(phase.epochs for phase in arm.history)
    grafts, spending = spend(fitter.model, worths, budget, epochs=epochs)
    return arm, grafts, spending
