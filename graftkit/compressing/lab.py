"""What stays the same while a model is made smaller: data, loss, settings, teacher; and networks that it trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from graftkit import api, pruning, surgery, training
from graftkit.contracts import Criterion, Data, LoadedModel, Metric, Observer
from graftkit.core.records import Measurement
from graftkit.fitting import Arm, Fitter, Journal, Prefixed, Settings
from graftkit.model import GraftedModel
from graftkit.pruning import Width
from graftkit.training import Best, Teacher

_BATCHES = 16  # of training rows, for what channels are worth


@dataclass(frozen=True, eq=False)
class Network:
    """A live module, traced, and what may shrink in it.

    Attributes:
        loaded: the module, as a source gives it.
        model: its graphs, which share its tensors.
        widths: what may shrink.
        measured: its numbers as it stands.
        epochs: that it was trained for in this run.
    """

    loaded: LoadedModel
    model: GraftedModel
    widths: tuple[Width, ...]
    measured: Measurement
    epochs: int = 0

    @property
    def module(self) -> torch.nn.Module:
        assert isinstance(self.loaded.model, torch.nn.Module)
        return self.loaded.model


@dataclass(eq=False)
class Lab:
    """Trains networks of one run alike.

    Attributes:
        data, criterion, metric: as `fit_model` takes them.
        settings: with epochs of each step.
        how: how modules are traced: `output` and `dynamic`.
        observer: told of all.
        journal: remembers arms that ended.
        teacher: the given model, if its answers are learned from.
    """

    data: Data
    criterion: Criterion
    metric: Metric
    settings: Settings
    how: Mapping[str, Any]
    observer: Observer
    journal: Journal
    teacher: Teacher | None = None

    def traced(self, loaded: LoadedModel) -> GraftedModel:
        """Its graphs, on the device of the run. Raises TraceError."""
        return surgery.empty(api.trace(loaded, self.data.example(), device=self.settings.device, **self.how))

    def network(
        self, loaded: LoadedModel, widths: Sequence[Width], *, epochs: int = 0, model: GraftedModel | None = None
    ) -> Network:
        """A module as it stands, traced where its graphs are not given, and measured."""
        model = model or self.traced(loaded)
        return Network(loaded, model, tuple(widths), self.measure(model), epochs)

    def measure(self, model: GraftedModel) -> Measurement:
        """The numbers of a model as it stands."""
        device, test = next(model.parameters()).device, self.data.test
        return Measurement(
            validation=training.evaluate(model, self.data.validation, self.metric, device),
            test=None if test is None else training.evaluate(model, test, self.metric, device),
            parameters=model.parameter_count(),
            macs=model.macs(),
        )

    def fitter(self, network: Network, where: str) -> Fitter:
        """What trains a network; `where` says which of the run's it is."""
        journal = Prefixed(self.journal, where)
        own = self.data, self.criterion, self.metric, self.settings, self.observer
        return Fitter(network.model, *own, journal, self.teacher)

    def trained(self, network: Network, where: str, name: str, lengths: Sequence[int], seed: int) -> Network:
        """The network in its best state of these phases; its module holds that state. Raises KeyboardInterrupt."""
        fitter = self.fitter(network, where)
        arm = fitter.plain_arm(name, lengths, seed)
        self.check_ended(arm)
        best: Best = arm.best_trained or arm.best
        measured = fitter.measure_at(best)
        return replace(network, measured=measured, epochs=network.epochs + sum(lengths))

    @staticmethod
    def check_ended(arm: Arm) -> None:
        """Raise KeyboardInterrupt where the user stopped the arm."""
        if arm.interrupted:
            raise KeyboardInterrupt

    def loss(self, model: GraftedModel) -> float:
        """The loss on labels of the validation rows, mean over labels that count."""
        device, total, count = next(model.parameters()).device, 0.0, 0
        model.eval()
        with torch.no_grad():
            for inputs, targets in training.batches(self.data.validation, 256):
                if counts := training.counted(targets):
                    given = [tensor.to(device) for tensor in model.arrange(inputs)]
                    total += float(self.criterion(model(*given), targets.to(device))) * counts
                    count += counts
        return total / max(1, count)

    def worths(self, network: Network, importance: pruning.Importance, seed: int) -> dict[str, torch.Tensor]:
        """What each unit of each width is worth, mean over batches of training rows."""
        channels = pruning.Channels(network.module, self.data.example())
        if not importance.reads_rows:
            return pruning.worths(channels, network.widths, importance)
        model, device = network.model.eval(), next(network.model.parameters()).device
        sums: dict[str, torch.Tensor] = {}
        with training.seeded(seed):
            rows = training.batches(self.data.train, self.settings.batch_size, seed=seed)
            for number, (inputs, targets) in enumerate(rows):
                if number == _BATCHES:
                    break
                model.zero_grad(set_to_none=True)
                given = [tensor.to(device) for tensor in model.arrange(inputs)]
                self.criterion(model(*given), targets.to(device)).backward()  # type: ignore[no-untyped-call]
                for name, worth in pruning.worths(channels, network.widths, importance).items():
                    sums[name] = sums.get(name, torch.zeros(())) + worth
        model.zero_grad(set_to_none=True)
        return sums
