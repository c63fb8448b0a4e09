"""From a traced model to what ships: grows, controls, and chooses by validation alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from graftkit import ranks, training
from graftkit.contracts import Criterion, Data, Metric, Observer
from graftkit.core.errors import PlanError, TrainingError
from graftkit.core.records import EpochRecord, Measurement, PhaseRecord, SeedRecord
from graftkit.core.values import Spending
from graftkit.costs import Budget
from graftkit.fitting.arms import Arm, Fitter, Settings
from graftkit.fitting.evidence import difference_error
from graftkit.fitting.journal import Journal
from graftkit.fitting.trial import trial
from graftkit.learning import Rule
from graftkit.model import GraftedModel
from graftkit.plan import GraftPlan
from graftkit.training import Best

_ROUNDING = 1e-6
PRECISIONS = ("32-true", "bf16-mixed")  # each is tested on every sample model; others are refused


@dataclass(frozen=True)
class FitResult:
    """What came of it. `model` holds what ships: the best grafted state, or the model as given."""

    model: GraftedModel
    baseline: Measurement
    control: Measurement | None
    grafted: Measurement
    best_grafted: Measurement | None
    shipped: str
    seeds: tuple[SeedRecord, ...]
    phases: tuple[PhaseRecord, ...]
    epochs: tuple[EpochRecord, ...]
    gains: dict[str, float]
    stopped: str
    interrupted: bool
    diverged: bool
    troubles: tuple[str, ...] = ()  # every arm whose numbers went wrong, in words
    spending: Spending | None = None  # how the budget was spent, where there was one
    margin: float | None = None  # standard error of what the best grafted network gains on validation; None: no gain
    states: Mapping[str, Best] = field(default_factory=dict)  # what `control` and `best_grafted` measure


def check_budget(rule: Rule, max_parameters: object) -> None:
    """Raise PlanError for what a budget does not go with."""
    if rule.detaches:
        raise PlanError(f"a budget values dendrites that learn by gradient; it does not go with the rule {rule.name}")
    if max_parameters is not None:
        raise PlanError("a budget and a limit of parameters both limit growth; give one")


def fit_model(
    model: GraftedModel,
    data: Data,
    additions: GraftPlan,
    rule: Rule,
    criterion: Criterion,
    metric: Metric,
    settings: Settings,
    observer: Observer,
    keep: Callable[[GraftedModel], None] = lambda model: None,
    budget: Budget | None = None,
    journal: Journal | None = None,
) -> FitResult:
    """Grow, control, choose by validation alone, and measure. The model ends in the state that ships.

    With a budget `additions` are candidates: a trial says which of them are grafted, and for which neurons. Its epochs
    are the control's, too.

    `keep` is called with the model in the best state so far, before anything else is done with it. Where the journal
    remembers an earlier run with the same arguments, the fit goes on from there.

    Raises TrainingError where the given model's own score is not a number, nothing may be trained, or an operation is
    not deterministic where all have to be.
    """
    if budget is not None:
        check_budget(rule, settings.max_parameters)
    if settings.precision not in PRECISIONS:
        raise TrainingError(f"precision {settings.precision!r} is not offered; choose {' or '.join(PRECISIONS)}")
    with training.deterministic(settings.deterministic):
        fitter = Fitter(model, data, criterion, metric, settings, observer, journal or Journal())
        return _fit(fitter, additions, rule, keep, budget)


def _fit(
    fitter: Fitter,
    additions: GraftPlan,
    rule: Rule,
    keep: Callable[[GraftedModel], None],
    budget: Budget | None,
) -> FitResult:
    settings, observer = fitter.settings, fitter.observer
    if not math.isfinite(fitter.baseline.validation):
        raise TrainingError(f"the model as given scores {fitter.baseline.validation} on the validation rows")
    if settings.control and not fitter.trains:
        observer.on_warning("every weight of the model is frozen, so there is nothing a control could train")
    troubles = _about_chance(fitter)
    for line in troubles:
        observer.on_warning(line)
    records: list[SeedRecord] = []
    chosen: Arm | None = None
    own: SeedRecord | None = None
    spending: Spending | None = None
    margin: float | None = None
    states: dict[str, Best] = {}
    interrupted = False
    for seed in range(settings.seed, settings.seed + settings.seeds):
        tried = bought = None
        if budget is None:
            grafted = fitter.grafted_arm(additions.grafts, rule, seed)
            lengths = [phase.epochs for phase in grafted.history]
        else:
            tried, grafts, bought = trial(fitter, additions.grafts, rule, budget, seed)
            grafted = fitter.grafted_arm(grafts, rule, seed) if grafts else _given(fitter, tried, bought)
            lengths = [phase.epochs for phase in tried.history + grafted.history]
        error = _give_back_unsure(fitter, grafted)
        trained = grafted.best_trained is not None or not grafted.interrupted
        if trained and (chosen is None or grafted.best.validation > chosen.best.validation):
            keep(fitter.model)  # the arm left it in its best state
        control = None
        if settings.control and fitter.trains and not grafted.interrupted:
            control = fitter.control_arm(lengths, seed)
        interrupted = grafted.interrupted or (control is not None and control.interrupted)
        arms = [arm for arm in (tried, grafted, control) if arm]
        troubles += [f"seed {seed}: {arm.trouble}" for arm in arms if arm.trouble]
        troubles += [f"seed {seed}: {arm.stopped}" for arm in arms if arm.diverged]
        records.append(_record(fitter, grafted, None if interrupted else control, seed))
        if chosen is None or _rank(grafted) > _rank(chosen):
            chosen, own, spending, margin = grafted, records[-1], bought, error
            states = _trained(grafted, None if interrupted else control)
        if interrupted:
            break
    assert chosen is not None and own is not None
    result = _result(fitter, chosen, own, records, interrupted)
    return replace(result, troubles=tuple(troubles), spending=spending, margin=margin, states=states)


def _give_back_unsure(fitter: Fitter, arm: Arm) -> float | None:
    """Where an arm is not surely better than the given model, its best is that model, and so stands the live one.

    Returns the standard error of what it gains on validation, None where it gains nothing or that cannot be told.
    """
    if not arm.best.cycle:
        return None
    given = fitter.answers(fitter.given_plan, fitter.given)
    ours = fitter.answers(arm.best.plan, arm.best.state)
    error = ranks.told(lambda: difference_error(fitter.metric, ours, given))
    if not _sure(fitter, arm.best.validation - fitter.baseline.validation, error):
        fitter.put_back(fitter.given_plan, fitter.given)
        arm.best = _as_given(fitter)
    return error


def _sure(fitter: Fitter, gain: float, error: float | None) -> bool:
    """Whether a gain on validation is enough to ship."""
    margin = fitter.settings.margin
    if not margin:
        return True
    if error is None:
        fitter.observer.on_warning("how sure the gain is cannot be told from the validation rows, so it does not ship")
        return False
    return gain > margin * error * (1 + _ROUNDING)  # one more row that is right gains its own error, and no more


def _as_given(fitter: Fitter) -> Best:
    return Best(fitter.baseline.validation, fitter.given_plan, fitter.given, cycle=0)


def _given(fitter: Fitter, tried: Arm, bought: Spending | None) -> Arm:
    """The arm in which nothing is grafted, because the trial found nothing worth it."""
    fitter.put_back(fitter.given_plan, fitter.given)
    why = "no dendrite of the trial was worth more than its error"
    if bought is not None and any(value.paying for value in bought.values):
        why = "no dendrite that pays fits into the budget"
    if tried.interrupted or tried.diverged:
        why = tried.stopped
    return Arm(_as_given(fitter), None, [], why, tried.diverged, tried.interrupted)


_CLEARLY = 0.05  # above chance, as a share of what lies above it


def _about_chance(fitter: Fitter) -> list[str]:
    """A warning where the model as given does not know its data: the usual reason is that they are not its own."""
    classes = fitter.data.classes
    if fitter.metric is not training.accuracy or not classes:
        return []
    chance = 1 / classes
    if fitter.baseline.validation > chance + _CLEARLY * (1 - chance):
        return []
    return [
        f"the model as given is right for {fitter.baseline.validation:.0%} of the validation rows, no better than"
        f" chance for {classes} classes: if it was trained, then probably on inputs of another scale, or with"
        " classes in another order"
    ]


def _best(arm: Arm) -> Best:
    """The arm's best trained state: what both arms are compared by; the given one where nothing was trained."""
    return arm.best_trained or arm.best


def _trained(grafted: Arm, control: Arm | None) -> dict[str, Best]:
    """Both arms' best trained states, of those that have one."""
    found = {"grafted": grafted.best_trained, "control": _best(control) if control else None}
    return {name: best for name, best in found.items() if best is not None}


def _rank(arm: Arm) -> tuple[bool, float]:
    """What ships comes before what does not, and then what validates better."""
    return bool(arm.best.cycle), _best(arm).validation


def _record(fitter: Fitter, grafted: Arm, control: Arm | None, seed: int) -> SeedRecord:
    return SeedRecord(
        seed=seed,
        grafted=fitter.measure_at(_best(grafted)),
        control=fitter.measure_at(_best(control)) if control else None,
        shipped="grafted" if grafted.best.cycle else "given",
    )


def _result(fitter: Fitter, chosen: Arm, own: SeedRecord, records: list[SeedRecord], interrupted: bool) -> FitResult:
    best_grafted = own.grafted if chosen.best_trained else None
    ships = fitter.measure_at(chosen.best)
    return FitResult(
        model=fitter.model,
        baseline=fitter.baseline,
        control=own.control,
        grafted=ships,
        best_grafted=best_grafted,
        shipped="grafted" if chosen.best.cycle else "given",
        seeds=tuple(records),
        phases=tuple(fitter.phases),
        epochs=tuple(fitter.epochs),
        gains={} if interrupted else fitter.gains(),
        stopped=chosen.stopped,
        interrupted=interrupted,
        diverged=chosen.diverged,
    )
