"""What stays the same over the arms and repetitions of one fit: model, data, settings, and how an arm is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import torch
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader

from graftkit import ranks, surgery, training
from graftkit.contracts import Criterion, Data, Metric, Observer
from graftkit.core.errors import DataError, TrainingError
from graftkit.core.records import EpochRecord, Measurement, PhaseRecord
from graftkit.dendrites import build_dendrite
from graftkit.fitting.journal import Journal
from graftkit.learning import Rule
from graftkit.model import GraftedModel
from graftkit.plan import Graft, GraftPlan
from graftkit.rules import Gradient
from graftkit.schedules import Cycles, Replay
from graftkit.training import Best, Recipe, Teacher, Trainer, bests_from_state, bests_to_state

UNSHRUNK, SHRUNK = "control, not shrunk", "control, shrunk"  # of two controls the one that does not count


@dataclass(frozen=True)
class Settings:
    """How to fit.

    Attributes:
        epochs: epochs of each phase.
        cycles: cycles at most; each grafts one dendrite a site, or one of each kind.
        batch_size: rows a step.
        recipe: the optimizer's settings.
        max_parameters: growth never goes beyond; None for no limit.
        seed: of the first repetition; the next has seed + 1.
        seeds: repetitions.
        control: whether the same epochs are also spent on the ungrafted model.
        margin: how many standard errors better than the given model on validation a grafted one must be to ship.
        device: as Lightning Fabric names accelerators.
        precision: "32-true" or "bf16-mixed".
        deterministic: refuse operations whose result may be another one each time.
    """

    epochs: int = 40
    cycles: int = 2
    batch_size: int = 64
    recipe: Recipe = field(default_factory=Recipe)
    max_parameters: int | None = None
    seed: int = 0
    seeds: int = 1
    control: bool = True
    margin: float = 1.0
    device: str = "cpu"
    precision: str = "32-true"
    deterministic: bool = False

    def __post_init__(self) -> None:
        least = {"epochs": 1, "cycles": 1, "batch_size": 1, "seeds": 1, "margin": 0}
        for name, bound in least.items():
            if not getattr(self, name) >= bound:  # nor is it a NaN
                raise TrainingError(f"{name} is {getattr(self, name)}; it has to be {bound} or more")


@dataclass
class Arm:
    """What one arm left: its best states, and why it ended."""

    best: Best
    best_trained: Best | None
    history: list[PhaseRecord]
    stopped: str
    diverged: bool
    interrupted: bool
    trouble: str = ""  # what went wrong and was mended

    def state(self) -> dict[str, Any]:
        """For a journal; `of` makes an arm of it again."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        plain["history"] = [asdict(record) for record in self.history]
        kept = bests_to_state({"best": plain.pop("best"), "best_trained": plain.pop("best_trained")})
        return {**plain, "kept": kept}

    @staticmethod
    def of(state: Mapping[str, Any]) -> Arm:
        """What told this `state`."""
        plain = {**state, "history": [PhaseRecord(**record) for record in state["history"]]}
        return Arm(**bests_from_state(plain.pop("kept")), **plain)  # type: ignore[arg-type]


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
        journal: Journal,
        teacher: Teacher | None = None,
    ):
        self.model, self.data, self.criterion, self.metric = model, data, criterion, metric
        self.settings, self.journal, self.teacher = settings, journal, teacher
        self.device = next(model.parameters()).device
        _check_alike(data)
        ranks.make_alike(model)
        self.fabric = training.one_process(self.device.type, settings.precision)
        self.given_plan, self.given = model.plan, model.snapshot()
        self.trains = any(p.requires_grad for p in model.parameters())
        self.phases: list[PhaseRecord] = []
        self.epochs: list[EpochRecord] = []
        self._told: list[dict[str, Any]] = []  # what this arm told the observer
        self.observer = replace(observer, on_epoch=self._see_epoch(observer), on_phase=self._see_phase(observer))
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

    def answers(self, plan: GraftPlan, state: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """(outputs, targets) on the validation rows of a state that was kept."""
        self.put_back(plan, state)
        return training.answers(self.model, self.data.validation, self.device)

    def measure_at(self, best: Best) -> Measurement:
        """The numbers of a state that was kept."""
        self.put_back(best.plan, best.state)
        return self.measure()

    def put_back(self, plan: GraftPlan, state: dict[str, torch.Tensor]) -> None:
        """Bring the model to a state that was kept."""
        surgery.put_back(self.model, plan, state, build_dendrite)

    def grafted_arm(self, additions: Sequence[Graft], rule: Rule, seed: int) -> Arm:
        """Grow from the given model."""
        schedule = Cycles(epochs=self.settings.epochs, cycles=self.settings.cycles, phases=rule.phases)
        return self._arm("grafted", additions, rule, schedule, seed)

    def plain_arm(self, name: str, lengths: Sequence[int], seed: int) -> Arm:
        """Train the given model for phases of these lengths, nothing grafted."""
        return self._arm(name, (), Gradient(), Replay(tuple(lengths)), seed, shrinks=False)

    def trial_arm(self, candidates: Sequence[Graft], rule: Rule, epochs: int, seed: int) -> Arm:
        """Graft all candidates at once and train for a short time."""
        return self._arm("trial", candidates, rule, Cycles(epochs=epochs, cycles=1), seed, shrinks=False)

    def control_arm(self, lengths: Sequence[int], seed: int) -> Arm:
        """Train the given model for phases of the same lengths, nothing grafted.

        Where weights are shrunk, once with that and once without, and what validates better is the control.
        """
        control = self._arm("control", (), Gradient(), Replay(tuple(lengths)), seed)
        if self.settings.recipe.shrink == 1 or control.interrupted:
            return control
        other = self._arm(UNSHRUNK, (), Gradient(), Replay(tuple(lengths)), seed, shrinks=False)
        scores = [(arm.best_trained or arm.best).validation for arm in (control, other)]
        if other.diverged or scores[0] >= scores[1]:
            return replace(control, interrupted=other.interrupted)
        names = {"control": SHRUNK, UNSHRUNK: "control"}
        self.epochs = [replace(r, arm=names.get(r.arm, r.arm)) if r.seed == seed else r for r in self.epochs]
        self.phases = [replace(r, arm=names.get(r.arm, r.arm)) if r.seed == seed else r for r in self.phases]
        return other

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

    def _arm(
        self,
        name: str,
        additions: Sequence[Graft],
        rule: Rule,
        schedule: Cycles | Replay,
        seed: int,
        *,
        shrinks: bool = True,
    ) -> Arm:
        self.put_back(self.given_plan, self.given)
        key, self._told = f"{seed} {name}", []
        ended = self.journal.ended(key)
        if ended is not None:
            return self._remembered(ended)
        size = self.settings.batch_size
        train = training.batches(self.data.train, size, seed=seed, shared=2)
        parts = training.hold_out(self.data.train, share=0.25, seed=seed) if "dendrite" in rule.phases else None
        candidates = training.batches(parts[0], size, seed=seed, shared=1) if parts else None
        with training.seeded(seed):
            trainer = Trainer(
                self.model,
                additions,
                rule=rule,
                schedule=schedule,
                build=build_dendrite,
                criterion=self.criterion,
                baseline=self.baseline.validation,
                steps_per_epoch=len(train),
                recipe=self.settings.recipe if shrinks else replace(self.settings.recipe, shrink=1.0),
                held_out=training.batches(parts[1], 256) if parts else None,
                max_parameters=self.settings.max_parameters,
                fabric=self.fabric,
                teacher=self.teacher,
                observer=self.observer,
                arm=name,
                seed=seed,
            )
            saved = self.journal.now(key)
            if saved is not None:
                self._tell_again(saved["told"])
                trainer.resume(saved["growth"])
                random = saved["random"]  # of each process, of which there may now be more
                training.set_random_states(random[ranks.number() % len(random)], train, candidates)

            def state() -> dict[str, Any]:
                random = ranks.gathered(training.random_states(train, candidates))
                return {"growth": trainer.state(), "random": random, "told": self._told}

            training.run(
                trainer,
                train,
                self.data.validation,
                self.metric,
                candidates=candidates,
                after=lambda: self.journal.keep(key, state),
            )
        arm = Arm(
            best=trainer.best,
            best_trained=trainer.best_trained,
            history=trainer.history,
            stopped=trainer.stopped,
            diverged=trainer.diverged,
            interrupted=trainer.interrupted,
            trouble=trainer.trouble,
        )
        if not arm.interrupted:
            self.journal.end(key, {"arm": arm.state(), "told": self._told})
        return arm

    def _remembered(self, ended: Mapping[str, Any]) -> Arm:
        """An arm that ended in an earlier run, as it was left."""
        self._tell_again(ended["told"])
        arm = Arm.of(ended["arm"])
        self.put_back(arm.best.plan, arm.best.state)
        return arm

    def _tell_again(self, told: Sequence[Mapping[str, Any]]) -> None:
        """Tell the observer what an earlier run told."""
        for one in told:
            if "of" in one:
                self.observer.on_epoch(EpochRecord(**one["epoch"]), one["of"])
            else:
                self.observer.on_phase(PhaseRecord(**one["phase"]))

    def _see_epoch(self, observer: Observer) -> Callable[[EpochRecord, int], None]:
        def see(record: EpochRecord, of: int) -> None:
            self.epochs.append(record)
            self._told.append({"epoch": asdict(record), "of": of})
            observer.on_epoch(record, of)

        return see

    def _see_phase(self, observer: Observer) -> Callable[[PhaseRecord], None]:
        def see(record: PhaseRecord) -> None:
            self.phases.append(record)
            self._told.append({"phase": asdict(record)})
            observer.on_phase(record)

        return see


def _check_alike(data: Data) -> None:
    """Raise DataError where processes that share rows have other ones."""
    if not ranks.several():
        return
    own = []
    for rows in (data.train, data.validation, data.test):
        if rows is not None and not isinstance(rows, DataLoader):
            first = tree_leaves(next(iter(training.batches(rows, 8))))
            own.append((len(rows), [float(t.double().nan_to_num().sum()) for t in first]))  # type: ignore[arg-type]
    if any(other != own for other in ranks.gathered(own)):
        raise DataError("the processes were given different data; read or make the same rows in all of them")
