"""Trains what grows: an optimizer anew for each phase, steps on batches, and a dendrite phase in one go."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from graftkit import ranks
from graftkit.contracts import Build, Criterion, GrowthSchedule, Inputs, Observer
from graftkit.core.errors import TrainingError
from graftkit.core.records import StepRecord
from graftkit.learning import Rule
from graftkit.model import GraftedModel, learning
from graftkit.plan import Graft
from graftkit.training.criteria import counted
from graftkit.training.distilling import Teacher
from graftkit.training.growth import Growth
from graftkit.training.recipe import Recipe
from graftkit.training.scales import scales
from graftkit.training.shrinking import check_shrink, shrink

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def one_process(device: str, precision: str = "32-true") -> Fabric:
    """Lightning Fabric for one process on one device: how precise it computes, and its backward pass."""
    from lightning_fabric import Fabric  # which takes two seconds and 120 MB, and a Grower has no need of it

    return Fabric(accelerator=device, devices=1, precision=precision)  # type: ignore[arg-type]


class Trainer(Growth):
    """Growth that brings its own optimizer, and is shown batches.

    ```python
    while trainer.phase is not None:
        if trainer.phase.kind == "dendrite":
            trainer.study(loader, validation_score)
            continue
        for inputs, targets in loader:
            trainer.learn(inputs, targets)
        trainer.step(validation_score)
    trainer.restore_best()
    ```

    Args:
        model, additions, rule, schedule, build, criterion, held_out, max_parameters, observer, arm, seed: as `Growth`
            takes them.
        baseline: the validation score of the model as given, a finite number.
        steps_per_epoch: calls of `learn` between two calls of `step`, for the learning rate's course.
        recipe: optimizer settings, the same in every phase.
        teacher: whose answers are learned from, too.

    Raises:
        TrainingError: the baseline is not a finite number, a rule's held-out rows are missing, or the recipe shrinks
            a network that the rule leaves as it is.
    """

    optimizer: torch.optim.Optimizer
    lr_scheduler: torch.optim.lr_scheduler.LRScheduler

    def __init__(
        self,
        model: GraftedModel,
        additions: Sequence[Graft],
        *,
        rule: Rule,
        schedule: GrowthSchedule,
        build: Build,
        criterion: Criterion,
        baseline: float,
        steps_per_epoch: int,
        recipe: Recipe = Recipe(),
        held_out: Iterable[tuple[Inputs, Tensor]] | None = None,
        max_parameters: int | None = None,
        fabric: Fabric | None = None,
        teacher: Teacher | None = None,
        observer: Observer | None = None,
        arm: str = "grafted",
        seed: int = 0,
    ):
        if not math.isfinite(baseline):
            raise TrainingError(f"the model as given scores {baseline} on the validation rows; look at its weights")
        check_shrink(model, recipe.shrink, rule)
        self.recipe, self.steps_per_epoch = recipe, steps_per_epoch
        self.fabric, self.teacher = fabric or one_process("cpu"), teacher
        self._norms = any("batch_norm" in str(node.target) for node in model.traced.train_graph.graph.nodes)
        self._scales: list[nn.Parameter] = []  # those that are drawn to zero
        self._total, self._rows = 0.0, 0  # the objective summed over the rows of this epoch
        self._course = 0  # steps of the learning rate's course
        super().__init__(
            model,
            additions,
            rule=rule,
            schedule=schedule,
            build=build,
            criterion=criterion,
            baseline=baseline,
            settled=recipe.settled,
            held_out=held_out,
            max_parameters=max_parameters,
            observer=observer,
            arm=arm,
            seed=seed,
        )

    def loss(self, inputs: Inputs, targets: Tensor) -> Tensor:
        """The loss on one batch."""
        given = self.model.arrange(inputs)
        with self.fabric.autocast():
            output = self.model(*given)
        own = self.criterion(output if output.dtype == torch.float64 else output.float(), targets)
        own = own if self.teacher is None else self.teacher.mixed(own, given, output, targets)
        for scale in self._scales:
            own = own + self.recipe.sparsity * scale.abs().sum()
        return own

    def learn(self, inputs: Inputs, targets: Tensor) -> float:
        """One step on one batch; returns the objective.

        After a loss that is not finite nothing is learned any more until `step` has dealt with it. A batch of one
        row teaches a model with batch norm nothing and is passed over.

        Raises:
            TrainingError: in a dendrite phase, which is `study`'s.
        """
        if self.phase is None or self.diverged:
            return math.nan
        if self._candidates is not None:
            raise TrainingError("in a dendrite phase the network stands still; call study with all batches at once")
        if len(targets) < 2 and self._norms and not self.rule.freeze:
            return math.nan  # traced batch norm would take the variance of one row, which is not a number
        self._set_mode()
        with learning(self.model.base.parameters() if self.rule.freeze else (), on=False):
            labels = counted(targets)
            loss = self.loss(inputs, targets) if labels or not ranks.several() else self._nothing(inputs)
            return self._descend(*ranks.weighed(loss, labels))

    def tell_step(self, number: int) -> None:
        """Tell the observer that so many steps of this epoch are done."""
        tell, phase = self.observer.on_step, self.phase
        if tell is not None and phase is not None:
            epoch = self._progress.epochs + 1
            tell(StepRecord(self.arm, phase.cycle, epoch, phase.epochs, number, self.steps_per_epoch))

    def study(self, batches: Iterable[tuple[Inputs, Tensor]], validation: float) -> None:
        """A whole dendrite phase: the network sees the batches once, candidates learn from what is kept of that.

        Args:
            batches: rows apart from those held out.
            validation: the score of the network, which stands still.

        Raises:
            TrainingError: in another phase; no rows, or no room for any.
        """
        phase, candidates = self.phase, self._candidates
        if phase is None or candidates is None:
            raise TrainingError("there is no dendrite phase to study for")
        device = next(self.model.parameters()).device
        try:
            for inputs, targets in batches:
                given = tuple(tensor.to(device) for tensor in self.model.arrange(inputs))
                if not candidates.watch(given, targets.to(device)):
                    break
            if not candidates.steps():
                raise TrainingError("dendrites have nothing to learn from: there are no rows, or no room for one batch")
            self._start_optimizer(candidates.parameters(), phase.epochs * candidates.steps())
            while self.phase is phase:
                for loss in candidates.losses():
                    if not math.isfinite(self._descend(loss, float(loss.detach()), 1)):
                        break
                self.step(validation)
        finally:
            candidates.close()

    def state(self) -> dict[str, Any]:
        own: dict[str, Any] = {"course": self._course}
        if self.phase is not None and self._candidates is None:
            own |= {"optimizer": self.optimizer.state_dict(), "lr_scheduler": self.lr_scheduler.state_dict()}
        return {**super().state(), "trainer": own}

    def resume(self, state: Mapping[str, Any]) -> None:
        super().resume(state)
        own = state["trainer"]
        if "optimizer" in own:
            self._start_optimizer(self.rule.trainable(self.model), own["course"])
            self.optimizer.load_state_dict(own["optimizer"])
            self.lr_scheduler.load_state_dict(own["lr_scheduler"])
            self._set_mode()

    def begin(self, epochs: int, *, anew: bool) -> None:
        if anew and self.recipe.shrink < 1:
            shrink(self.model, self.recipe.shrink)
        self._start_optimizer(self.rule.trainable(self.model), epochs * self.steps_per_epoch)
        self._set_mode()

    def learned(self) -> tuple[float, float]:
        mean = self._total / self._rows if self._rows else math.nan
        self._total, self._rows = 0.0, 0
        return mean, float(self.lr_scheduler.get_last_lr()[0])

    def _nothing(self, inputs: Inputs) -> Tensor:
        """Zero, with a gradient of zero: for a share in which no label counts."""
        output: Tensor = self.model(*self.model.arrange(inputs))
        return output.sum() * 0.0

    def _descend(self, own: Tensor, value: float, weight: int) -> float:
        """One step of the optimizer; returns the objective, and where that is no finite number takes no step.

        Args:
            own: this process's part of the objective.
            value: the objective over all processes.
            weight: what it counts in the mean of the epoch.
        """
        if not math.isfinite(value):
            self.diverged = True
            return value
        self.optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(own)
        ranks.sum_gradients(p for group in self.optimizer.param_groups for p in group["params"])
        self.optimizer.step()
        self.lr_scheduler.step()
        self._total += value * weight
        self._rows += weight
        return value

    def _start_optimizer(self, parameters: Sequence[nn.Parameter], steps: int) -> None:
        if not parameters:
            raise TrainingError("no parameter of the model may be trained: every requires_grad is False")
        self._course = steps
        self._scales = scales(self.model) if self.recipe.sparsity else []
        recipe, rate = self.recipe, self.recipe.learning_rate * self.pace
        self.optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=recipe.weight_decay)
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: recipe.rate(step, steps))

    def _set_mode(self) -> None:
        """A network that learns is in training; one that stands still is as it is in evaluation."""
        training = not self.rule.freeze
        if self.model.training != training:
            self.model.train(training)
