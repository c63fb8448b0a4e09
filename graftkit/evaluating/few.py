"""A run done again with a share of the training rows, from fresh weights: what each network learns of few samples."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace

from graftkit import preflight, surgery, training
from graftkit.contracts import Criterion, Data, Metric, Observer
from graftkit.core.compressions import GIVEN
from graftkit.core.evaluations import FewRecord
from graftkit.core.records import Measurement
from graftkit.dendrites import build_dendrite
from graftkit.evaluating.asked import Asked
from graftkit.evaluating.beginning import draw
from graftkit.evaluating.networks import CONTROL, GRAFTED, Network, Opened
from graftkit.evaluating.shares import shared
from graftkit.fitting import Fitter, FolderJournal, Settings, fit_model
from graftkit.learning import Rule
from graftkit.model import GraftedModel
from graftkit.plan import GraftPlan
from graftkit.request import Request

Scored = Mapping[str, Measurement]  # by network


@dataclass(frozen=True, eq=False)
class Study:
    """What stays the same over shares and seeds.

    Attributes:
        run: the networks and data of the run that is done again.
        asked: shares, seeds, epochs.
        request: what the run was asked for.
        settings: how the run trained, each arm once.
        rule: by which dendrites were learned.
        criterion, metric: as the run had them.
        observer: told how it goes.
        journal: remembers shares that ended.
    """

    run: Opened
    asked: Asked
    request: Request
    settings: Settings
    rule: Rule
    criterion: Criterion
    metric: Metric
    observer: Observer
    journal: FolderJournal

    @property
    def start(self) -> str:
        """What is learned from: "fresh" weights, or the "given" ones."""
        alone = self.rule.freeze and not self.run.compressed
        return self.asked.start if self.asked.start != "auto" else "given" if alone else "fresh"

    def check(self) -> None:
        """Find wrong, before anything is trained, what would be found later. Raises DataError, TraceError."""
        for share in self.asked.shares:
            shared(self.run.data, share, seed=self.asked.seed)
        for network in self.run.networks:
            self._begun(network, self.asked.seed)

    def records(self) -> Iterator[FewRecord]:
        """One for each share and seed; those that ended before a break are not trained again. Raises DataError."""
        for seed in range(self.asked.seed, self.asked.seed + self.asked.seeds):
            for share in self.asked.shares:
                key = f"few {share:g} {seed}"
                ended = self.journal.ended(key)
                if ended is None:
                    arms = FolderJournal(self.journal.folder / "arms" / key.replace(" ", "-"), self.journal.warn)
                    ended = {"record": asdict(self._record(share, seed, arms))}
                    self.journal.end(key, ended)
                    shutil.rmtree(arms.folder.parent, ignore_errors=True)
                yield FewRecord(**ended["record"])

    def _record(self, share: float, seed: int, journal: FolderJournal) -> FewRecord:
        data = shared(self.run.data, share, seed=seed)
        rows = len(data.train)  # type: ignore[arg-type]
        self.observer.on_stage(f"learning from {100 * share:.3g}% of the rows ({rows:,}), seed {seed}")
        longer = self._steps(self.run.data) / self._steps(data)
        first = self._first() if self.run.compressed or self.start == "fresh" else 0
        epochs = round(first * longer)
        train = self._shapes if self.run.compressed else self._arms
        scored = train(data, longer, seed, epochs, journal)
        test = {name: one.test for name, one in scored.items() if one.test is not None}
        tested = data.validation if data.test is None else data.test
        counted = sum(len(targets) for _, targets in training.batches(tested, training.BATCH))
        return FewRecord(share, rows, seed, epochs, counted, {n: one.validation for n, one in scored.items()}, test)

    def _steps(self, data: Data) -> int:
        """In an epoch."""
        return max(1, len(training.batches(data.train, self.settings.batch_size, seed=0)))

    def _first(self) -> int:
        """Epochs of the first training with all rows: as many as the run trained for, or as were asked for."""
        if self.asked.epochs is not None:
            return self.asked.epochs
        return self.run.trained or self.settings.epochs * self.settings.cycles * len(self.rule.phases)

    def _arms(self, data: Data, longer: float, seed: int, epochs: int, journal: FolderJournal) -> Scored:
        """The network itself, trained on for as long as with dendrites, and with them, as the run had it."""
        model = self._begun(self.run.given, seed)
        settings = replace(self.settings, seed=seed, epochs=max(1, round(self.settings.epochs * longer)))
        if epochs:
            self._trained(GIVEN, model, data, settings, epochs, journal)
        additions, left_out = self.request.additions(model.traced, self.rule)
        additions, _ = preflight.reached_plan(model, additions, left_out, named=bool(self.request.sites))
        result = fit_model(
            model,
            data,
            additions,
            self.rule,
            self.criterion,
            self.metric,
            settings,
            self.observer,
            budget=self.request.growth(self.rule),
            journal=journal,
        )
        _check_ended(interrupted=result.interrupted)
        found = {GIVEN: result.baseline, CONTROL: result.control, GRAFTED: result.best_grafted}
        if result.best_grafted is None:
            self.observer.on_warning(f"nothing was grafted with seed {seed} and {len(data.train)} rows")  # type: ignore[arg-type]
        return {name: one for name, one in found.items() if one is not None}

    def _shapes(self, data: Data, longer: float, seed: int, epochs: int, journal: FolderJournal) -> Scored:
        """Of a compression: the model's shape as given, and what pruning left with its dendrites, for as long."""
        settings, found = replace(self.settings, seed=seed), {}
        for network in (self.run.given, self.run.networks[-1]):
            name, model = f"shape of {network.name}", self._begun(network, seed)
            found[name] = self._trained(name, model, data, settings, epochs, journal)
        return found

    def _begun(self, network: Network, seed: int) -> GraftedModel:
        """The live model as it begins: fresh but for what is frozen, with dendrites that are silent."""
        model = network.awake()
        if self.start == "given":
            return model
        left = draw(model, seed)
        if left:
            self.observer.on_warning(
                f"{', '.join(left[:3])} begin{'s' * (len(left) == 1)} as normal numbers with the mean and spread of the"
                " trained ones: no layer says how"
            )
        if network.plan.grafts:
            surgery.truncate(model, GraftPlan())
            surgery.graft(model, network.plan.grafts, build_dendrite, seed=seed)
        return model

    def _trained(
        self, name: str, model: GraftedModel, data: Data, settings: Settings, epochs: int, journal: FolderJournal
    ) -> Measurement:
        """The model in its best state after so many epochs, and its numbers."""
        fitter = Fitter(model, data, self.criterion, self.metric, settings, self.observer, journal)
        arm = fitter.plain_arm(name, (epochs,), settings.seed)
        _check_ended(interrupted=arm.interrupted)
        return fitter.measure_at(arm.best_trained or arm.best)


def _check_ended(*, interrupted: bool) -> None:
    """Raise KeyboardInterrupt where the user stopped an arm."""
    if interrupted:
        raise KeyboardInterrupt
