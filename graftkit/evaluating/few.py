"""A run done again with a share of the training rows, from fresh weights: what each network learns of few samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from graftkit import augmenting, surgery, training
from graftkit.contracts import Criterion, Data, Metric, Observer
from graftkit.core.errors import TraceError
from graftkit.core.evaluations import FewRecord
from graftkit.core.records import Measurement
from graftkit.dendrites import build_dendrite
from graftkit.evaluating.asked import Asked
from graftkit.evaluating.networks import CONTROL, GIVEN, GRAFTED, Network, Opened
from graftkit.evaluating.shares import nested
from graftkit.fitting import Fitter, Journal, Prefixed, Settings, fit_model
from graftkit.learning import Rule
from graftkit.model import GraftedModel
from graftkit.planning import parameter_limit
from graftkit.request import Request

Scored = Mapping[str, Measurement]  # by network


@dataclass(frozen=True, eq=False)
class Study:
    """What stays the same over shares and seeds.

    Attributes:
        run: the networks and data of the run that is done again.
        asked: shares, seeds, epochs.
        request: what the run was asked for.
        rule: by which dendrites were learned.
        criterion, metric: as the run had them.
        observer: told how it goes.
        journal: remembers what has ended.
    """

    run: Opened
    asked: Asked
    request: Request
    rule: Rule
    criterion: Criterion
    metric: Metric
    observer: Observer
    journal: Journal

    @property
    def start(self) -> str:
        """What is learned from: "fresh" weights, or the "given" ones."""
        alone = self.rule.freeze and not self.run.compressed
        return self.asked.start if self.asked.start != "auto" else "given" if alone else "fresh"

    @property
    def settings(self) -> Settings:
        """The run's own."""
        own = self.request.settings
        limit = parameter_limit(self.request.max_parameters, self.run.given.awake().parameter_count())
        return replace(own, seeds=1, control=True, device=self.asked.device, max_parameters=limit)

    def epochs(self) -> int:
        """Of the first training with all rows: as many as the run trained for, or as were asked for."""
        settings = self.request.settings
        if self.asked.epochs is not None:
            return self.asked.epochs
        return self.run.trained or settings.epochs * settings.cycles * len(self.rule.phases)

    def check(self) -> None:
        """Find wrong, before anything is trained, what would be found later. Raises DataError, TraceError."""
        nested(self.run.data, self.asked.shares, seed=self.asked.seed)
        for network in self.run.networks:
            self._begun(network, self.asked.seed)

    def records(self) -> Iterator[FewRecord]:
        """One for each share and seed; those that ended before a break are not trained again.

        Raises DataError, TraceError.
        """
        for seed in range(self.asked.seed, self.asked.seed + self.asked.seeds):
            for share, data in sorted(nested(self.run.data, self.asked.shares, seed=seed).items()):
                key = f"few {share:g} {seed}"
                ended = self.journal.ended(key)
                if ended is None:
                    ended = {"record": asdict(self._record(share, data, seed, Prefixed(self.journal, key)))}
                    self.journal.end(key, ended)
                yield FewRecord(**ended["record"])

    def _record(self, share: float, data: Data, seed: int, journal: Journal) -> FewRecord:
        rows = len(data.train)  # type: ignore[arg-type]
        self.observer.on_stage(f"learning from {100 * share:.3g}% of the rows ({rows:,}), seed {seed}")
        longer = self.epochs() if self.run.compressed or self.start == "fresh" else 0
        epochs = as_many_steps(longer, share)
        train = self._shapes if self.run.compressed else self._arms
        scored = train(data, share, seed, epochs, journal)
        test = {name: one.test for name, one in scored.items() if one.test is not None}
        return FewRecord(share, rows, seed, epochs, {name: one.validation for name, one in scored.items()}, test)

    def _arms(self, data: Data, share: float, seed: int, epochs: int, journal: Journal) -> Scored:
        """The network itself, trained on for as long as with dendrites, and with them, as the run had it."""
        model = self._begun(self.run.given, seed)
        settings = replace(self.settings, seed=seed)
        settings = replace(settings, epochs=as_many_steps(settings.epochs, share))
        if epochs:
            self._trained(model, data, settings, epochs, journal)
        additions, _ = augmenting.planned(self.request, model, self.rule)
        result = fit_model(
            model,
            data,
            additions,
            self.rule,
            self.criterion,
            self.metric,
            settings,
            self.observer,
            budget=augmenting.find_budget(self.request, self.rule),
            journal=journal,
        )
        _check_ended(interrupted=result.interrupted)
        control = {} if result.control is None else {CONTROL: result.control}
        return {GIVEN: result.baseline, **control, GRAFTED: result.best_grafted or result.baseline}

    def _shapes(self, data: Data, share: float, seed: int, epochs: int, journal: Journal) -> Scored:
        """Of a compression: the model's shape as given, and what pruning left with its dendrites, for as long."""
        settings, found = replace(self.settings, seed=seed), {}
        for network in (self.run.given, self.run.networks[-1]):
            model = self._begun(network, seed)
            found[network.name] = self._trained(model, data, settings, epochs, Prefixed(journal, network.name))
        return found

    def _begun(self, network: Network, seed: int) -> GraftedModel:
        """The live model as it begins: fresh but for what is frozen, with dendrites that are silent."""
        model = network.awake()
        if self.start == "given":
            return model
        with training.seeded(seed):
            kept = {name: p.detach().clone() for name, p in model.base.named_parameters() if not p.requires_grad}
            _draw(model)
            _put(model, kept)
        if network.plan.grafts:
            surgery.truncate(model, type(network.plan)(()))
            surgery.graft(model, network.plan.grafts, build_dendrite, seed=seed)
        return model

    def _trained(
        self, model: GraftedModel, data: Data, settings: Settings, epochs: int, journal: Journal
    ) -> Measurement:
        """The model in its best state after so many epochs, and its numbers."""
        own = data, self.criterion, self.metric, settings, self.observer
        fitter = Fitter(model, *own, Prefixed(journal, "begin"))
        arm = fitter.plain_arm(GIVEN, (epochs,), settings.seed)
        _check_ended(interrupted=arm.interrupted)
        return fitter.measure_at(arm.best_trained or arm.best)


def as_many_steps(epochs: int, share: float) -> int:
    """Epochs in which a share of the rows gives about as many steps as all rows do."""
    return round(epochs / share)


def _draw(model: GraftedModel) -> None:
    """Fresh weights, in place. Raises TraceError for a graph, which does not say how its weights began."""
    source = model.traced.source
    left = None if source is None else training.fresh(source)
    if source is None or left is None or len(left) == len(dict(source.named_parameters())):
        raise TraceError(
            f"{model.traced.name} is a graph that does not say how its weights began, so few samples have nothing to"
            " begin from; --start given takes the weights as they are, --only corruptions leaves few samples out"
        )


def _put(model: GraftedModel, kept: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, tensor in kept.items():
            model.base.get_parameter(name).copy_(tensor)


def _check_ended(*, interrupted: bool) -> None:
    """Raise KeyboardInterrupt where the user stopped an arm."""
    if interrupted:
        raise KeyboardInterrupt
