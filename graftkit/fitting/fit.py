"""Fits one traced model: the grafted arm, its control, and what each site gained."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from lightning_fabric import Fabric

from graftkit import surgery, training
from graftkit.contracts import Criterion, Data, Metric, Observer
from graftkit.core.errors import TrainingError
from graftkit.core.records import EpochRecord, Measurement, PhaseRecord, SeedRecord
from graftkit.dendrites import build_dendrite
from graftkit.learning import Rule
from graftkit.model import GraftedModel
from graftkit.plan import Graft, GraftPlan
from graftkit.rules import Gradient
from graftkit.schedules import Cycles, Replay
from graftkit.training import Best, Grower, Recipe

PRECISIONS = ("32-true", "bf16-mixed")  # each is tested on every sample model; others are refused


@dataclass(frozen=True)
class Settings:
    """How to fit.

    Attributes:
        epochs: epochs of each phase.
        cycles: cycles at most; each grafts one dendrite a site.
        batch_size: rows a step.
        recipe: the optimizer's settings.
        max_parameters: growth never goes beyond; None for no limit.
        seed: of the first repetition; the next has seed + 1.
        seeds: repetitions.
        control: whether the same epochs are also spent on the ungrafted model.
        device: as Lightning Fabric names accelerators.
        precision: "32-true" or "bf16-mixed".
    """

    epochs: int = 40
    cycles: int = 2
    batch_size: int = 64
    recipe: Recipe = field(default_factory=Recipe)
    max_parameters: int | None = None
    seed: int = 0
    seeds: int = 1
    control: bool = True
    device: str = "cpu"
    precision: str = "32-true"


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


@dataclass
class _Arm:
    """What one arm left: its best states, and why it ended."""

    best: Best
    best_trained: Best | None
    history: list[PhaseRecord]
    stopped: str
    diverged: bool
    interrupted: bool


class Fitter:
    """Everything that stays the same over the arms and repetitions of one fit."""

    def __init__(
        self,
        model: GraftedModel,
        data: Data,
        criterion: Criterion,
        metric: Metric,
        settings: Settings,
        observer: Observer,
    ):
        self.model, self.data, self.criterion, self.metric = model, data, criterion, metric
        self.settings = settings
        self.device = next(model.parameters()).device
        self.fabric = Fabric(accelerator=self.device.type, devices=1, precision=settings.precision)  # type: ignore[arg-type]
        self.given_plan, self.given = model.plan, model.snapshot()
        self.trains = any(p.requires_grad for p in model.parameters())
        self.phases: list[PhaseRecord] = []
        self.epochs: list[EpochRecord] = []
        self.observer = Observer(
            observer.on_stage, self._see_epoch(observer), self._see_phase(observer), observer.on_warning
        )
        self.baseline = self.measure()

    def measure(self) -> Measurement:
        """The model's numbers as it stands; the test part is looked at, never decided by."""
        test = self.data.test
        return Measurement(
            validation=training.evaluate(self.model, self.data.validation, self.metric, self.device),
            test=None if test is None else training.evaluate(self.model, test, self.metric, self.device),
            parameters=self.model.parameter_count(),
            macs=self.model.macs(),
        )

    def measure_at(self, best: Best) -> Measurement:
        """The numbers of a state that was kept."""
        self.put_back(best.plan, best.state)
        return self.measure()

    def put_back(self, plan: GraftPlan, state: dict[str, torch.Tensor]) -> None:
        """Bring the model to a state that was kept."""
        surgery.put_back(self.model, plan, state, build_dendrite)

    def grafted_arm(self, additions: Sequence[Graft], rule: Rule, seed: int) -> _Arm:
        """Grow from the given model."""
        schedule = Cycles(epochs=self.settings.epochs, cycles=self.settings.cycles, phases=rule.phases)
        return self._arm("grafted", additions, rule, schedule, seed)

    def control_arm(self, lengths: Sequence[int], seed: int) -> _Arm:
        """Train the given model for phases of the same lengths, nothing grafted."""
        return self._arm("control", (), Gradient(), Replay(tuple(lengths)), seed)

    def gains(self) -> dict[str, float]:
        """For each grafted site, the validation metric that is lost when its strengths are zero."""
        whole = training.evaluate(self.model, self.data.validation, self.metric, self.device)
        found = {}
        for site in self.model.plan.sites():
            kept = self.model.silence(site)
            without = training.evaluate(self.model, self.data.validation, self.metric, self.device)
            self.model.unsilence(site, kept)
            found[site] = whole - without
        return found

    def _arm(self, name: str, additions: Sequence[Graft], rule: Rule, schedule: Cycles | Replay, seed: int) -> _Arm:
        self.put_back(self.given_plan, self.given)
        size = self.settings.batch_size
        train = training.batches(self.data.train, size, seed=seed)
        parts = training.hold_out(self.data.train, share=0.25, seed=seed) if "dendrite" in rule.phases else None
        candidates = training.batches(parts[0], size, seed=seed) if parts else None
        with training.seeded(seed):
            grower = Grower(
                self.model,
                additions,
                rule=rule,
                schedule=schedule,
                build=build_dendrite,
                criterion=self.criterion,
                baseline=self.baseline.validation,
                steps_per_epoch=len(train),
                recipe=self.settings.recipe,
                held_out=training.batches(parts[1], 256) if parts else None,
                candidate_steps=len(candidates) if candidates else None,
                max_parameters=self.settings.max_parameters,
                fabric=self.fabric,
                observer=self.observer,
                arm=name,
                seed=seed,
            )
            training.run(grower, train, self.data.validation, self.metric, candidates=candidates)
        return _Arm(
            grower.best, grower.best_trained, grower.history, grower.stopped, grower.diverged, grower.interrupted
        )

    def _see_epoch(self, observer: Observer) -> Callable[[EpochRecord, int], None]:
        def see(record: EpochRecord, of: int) -> None:
            self.epochs.append(record)
            observer.on_epoch(record, of)

        return see

    def _see_phase(self, observer: Observer) -> Callable[[PhaseRecord], None]:
        def see(record: PhaseRecord) -> None:
            self.phases.append(record)
            observer.on_phase(record)

        return see


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
) -> FitResult:
    """Grow, control, choose by validation alone, and measure. The model ends in the state that ships.

    `keep` is called with the model in the best state so far, before anything else is done with it.

    Raises TrainingError where the given model's own score is not a number, or nothing may be trained.
    """
    if settings.precision not in PRECISIONS:
        raise TrainingError(f"precision {settings.precision!r} is not offered; choose {' or '.join(PRECISIONS)}")
    fitter = Fitter(model, data, criterion, metric, settings, observer)
    if not math.isfinite(fitter.baseline.validation):
        raise TrainingError(f"the model as given scores {fitter.baseline.validation} on the validation rows")
    if settings.control and not fitter.trains:
        observer.on_warning("every weight of the model is frozen, so there is nothing a control could train")
    troubles = _about_chance(fitter, data, metric)
    for line in troubles:
        observer.on_warning(line)
    records: list[SeedRecord] = []
    chosen: _Arm | None = None
    own: SeedRecord | None = None
    interrupted = False
    for seed in range(settings.seed, settings.seed + settings.seeds):
        grafted = fitter.grafted_arm(additions.grafts, rule, seed)
        if chosen is None or grafted.best.validation > chosen.best.validation:
            keep(model)  # the arm left it in its best state
        control = None
        if settings.control and fitter.trains and not grafted.interrupted:
            control = fitter.control_arm([phase.epochs for phase in grafted.history], seed)
        interrupted = grafted.interrupted or (control is not None and control.interrupted)
        troubles += [f"seed {seed}: {arm.stopped}" for arm in (grafted, control) if arm and arm.diverged]
        records.append(_record(fitter, grafted, None if interrupted else control, seed))
        if chosen is None or _best(grafted).validation > _best(chosen).validation:
            chosen, own = grafted, records[-1]
        if interrupted:
            break
    assert chosen is not None and own is not None
    return replace(_result(fitter, chosen, own, records, interrupted), troubles=tuple(troubles))


_CLEARLY = 0.05  # above chance, as a share of what lies above it


def _about_chance(fitter: Fitter, data: Data, metric: Metric) -> list[str]:
    """A warning where the model as given does not know its data: the usual reason is that they are not its own."""
    if metric is not training.accuracy or not data.classes:
        return []
    chance = 1 / data.classes
    if fitter.baseline.validation > chance + _CLEARLY * (1 - chance):
        return []
    return [
        f"the model as given is right for {fitter.baseline.validation:.0%} of the validation rows, no better than"
        f" chance for {data.classes} classes: it was probably trained on inputs of another scale, or classes in"
        " another order"
    ]


def _best(arm: _Arm) -> Best:
    """The arm's best trained state: what both arms are compared by; the given one where nothing was trained."""
    return arm.best_trained or arm.best


def _record(fitter: Fitter, grafted: _Arm, control: _Arm | None, seed: int) -> SeedRecord:
    return SeedRecord(
        seed=seed,
        grafted=fitter.measure_at(_best(grafted)),
        control=fitter.measure_at(_best(control)) if control else None,
        shipped="grafted" if grafted.best.cycle else "given",
    )


def _result(fitter: Fitter, chosen: _Arm, own: SeedRecord, records: list[SeedRecord], interrupted: bool) -> FitResult:
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
