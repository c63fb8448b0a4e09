"""A short trial of many dendrites at once, which says what a budget is best spent on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor
from torch.utils._pytree import tree_map
from torch.utils.data import DataLoader

from graftkit import ranks, training
from graftkit.contracts import Inputs, Rows
from graftkit.core.values import Spending
from graftkit.costs import Budget
from graftkit.fitting.arms import Arm, Fitter
from graftkit.learning import Rule
from graftkit.plan import Graft, GraftPlan
from graftkit.spending import spend

TRIAL = 4  # a trial takes one epoch in so many of a phase's
_BATCHES = 20  # of validation rows, at least: the standard error of a worth comes from their spread
_PARTS = 8  # of each batch of a loader, which may have one alone
_LARGEST = 256


def trial(
    fitter: Fitter, candidates: Sequence[Graft], rule: Rule, budget: Budget, seed: int
) -> tuple[Arm, tuple[Graft, ...], Spending | None]:
    """The arm that tried all candidates at once, what the budget goes to, and how that was found.

    What a dendrite is worth is measured on the validation rows, which the model as given has not learned from, in the
    best state of the trial. Nothing is bought where the trial was interrupted or diverged.
    """
    arm = fitter.trial_arm(candidates, rule, max(1, fitter.settings.epochs // TRIAL), seed)
    if arm.interrupted or arm.diverged or arm.best_trained is None:
        return arm, (), None
    key = f"{seed} bought"
    bought = fitter.journal.ended(key)
    if bought is not None:  # what a network costs in time is another number the second time
        fitter.put_back(fitter.given_plan, fitter.given)
        return arm, GraftPlan.from_json(bought["plan"]).grafts, Spending.from_json(bought["spending"])
    fitter.observer.on_stage("valuing dendrites")
    fitter.put_back(arm.best_trained.plan, arm.best_trained.state)
    first = len(fitter.given_plan.grafts)
    worths = training.attribute(fitter.model, _batches(fitter.data.validation), fitter.criterion, first=first)
    fitter.put_back(fitter.given_plan, fitter.given)
    epochs = sum(phase.epochs for phase in arm.history)
    fitter.observer.on_stage(f"pricing dendrites in {budget.cost.unit}")
    grafts, spending = ranks.told(lambda: spend(fitter.model, worths, budget, epochs=epochs))  # it may take times
    fitter.journal.end(key, {"plan": GraftPlan(grafts).to_json(), "spending": spending.to_json()})
    return arm, grafts, spending


def _batches(rows: Rows) -> Iterator[tuple[Inputs, Tensor]]:
    """Enough batches for their spread to say something, also of a loader that gives few."""
    known = None if isinstance(rows, DataLoader) else max(1, min(_LARGEST, len(rows) // _BATCHES))  # type: ignore[arg-type]
    for inputs, targets in training.batches(rows, known or _LARGEST):
        size = known or max(1, min(_LARGEST, len(targets) // _PARTS))
        for start in range(0, len(targets), size):
            part = slice(start, start + size)
            yield tree_map(lambda tensor, part=part: tensor[part], inputs), targets[part]
