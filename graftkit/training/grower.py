"""Grows a model while somebody's loop trains it: phases, optimizer, the best state, and the way back to it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from graftkit import surgery
from graftkit.contracts import Build, Criterion, GrowthSchedule, Inputs, Observer, Phase
from graftkit.core.errors import TrainingError
from graftkit.core.records import EpochRecord, PhaseRecord
from graftkit.learning import Candidates, Rule
from graftkit.model import GraftedModel, learning
from graftkit.plan import Graft
from graftkit.training.keeping import Best, Keeper
from graftkit.training.progress import Progress, Step
from graftkit.training.recipe import Recipe
from graftkit.training.shrinking import check_shrink, shrink


class Grower:
    """Drives growth from inside a training loop.

    The best state is the best validated of each phase's last epochs (`Recipe.settled`), of equal ones the latest.

    ```python
    while grower.phase is not None:
        if grower.phase.kind == "dendrite":
            grower.study(loader, validation_score)
            continue
        for inputs, targets in loader:
            grower.learn(inputs, targets)
        grower.step(validation_score)
    grower.restore_best()
    ```

    Args:
        model: grafted in place.
        additions: what one cycle grafts.
        rule, schedule: how dendrites learn, and when which phase comes.
        build: makes the dendrite that a graft asks for.
        criterion: the loss, (outputs, targets) to one number.
        baseline: the validation score of the model as given; higher is better.
        steps_per_epoch: calls of `learn` between two calls of `step`, for the learning rate's course.
        recipe: optimizer settings, the same in every phase.
        held_out: rows kept from training, for a rule with a dendrite phase.
        max_parameters: growth never goes beyond; None for no limit.
        arm: what the records call it.
        seed: decides fresh weights; every other randomness is the caller's.

    Raises:
        TrainingError: the baseline is not a finite number, a rule's held-out rows are missing, or the recipe shrinks
            a network that the rule leaves as it is.
    """

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
        observer: Observer | None = None,
        arm: str = "grafted",
        seed: int = 0,
    ):
        if not math.isfinite(baseline):
            raise TrainingError(f"the model as given scores {baseline} on the validation rows; look at its weights")
        if "dendrite" in rule.phases and additions and held_out is None:
            raise TrainingError(
                "the rule tests dendrites on held-out rows, but the training data are a loader; give a dataset"
            )
        check_shrink(model, recipe.shrink, rule)
        self.model, self.additions, self.rule, self.schedule = model, tuple(additions), rule, schedule
        self.build, self.criterion, self.recipe, self.held_out = build, criterion, recipe, held_out
        self.steps_per_epoch, self.max_parameters = steps_per_epoch, max_parameters
        self.fabric = fabric or Fabric(accelerator="cpu", devices=1)
        self.observer, self.arm, self.seed = observer or Observer(), arm, seed
        self.history: list[PhaseRecord] = []
        self._kept = Keeper(Best(baseline, model.plan, model.snapshot(), cycle=0))
        self.stopped = ""
        self.diverged = self.interrupted = False
        self.optimizer: torch.optim.Optimizer
        self.lr_scheduler: torch.optim.lr_scheduler.LRScheduler
        self.phase: Phase | None = None
        self._epochs = 0
        self._progress = Progress()
        self._candidates: Candidates | None = None
        self._norms = any("batch_norm" in str(node.target) for node in model.traced.train_graph.graph.nodes)
        self._advance()

    @property
    def finished(self) -> bool:
        """Whether growth has ended."""
        return self.phase is None

    @property
    def best(self) -> Best:
        """The best validated state, which may be the model as given."""
        return self._kept.best

    @property
    def best_trained(self) -> Best | None:
        """The best state after an epoch, also where the given model is better; None before any."""
        return self._kept.trained

    def loss(self, inputs: Inputs, targets: Tensor) -> Tensor:
        """The loss on one batch."""
        given = self.model.arrange(inputs)
        with self.fabric.autocast():
            output = self.model(*given)
        return self.criterion(output.float(), targets)

    def learn(self, inputs: Inputs, targets: Tensor) -> float:
        """One step on one batch; returns the objective.

        After a loss that is not finite nothing is learned any more, and `step` ends growth. A batch of one row
        teaches a model with batch norm nothing and is passed over.

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
            return self._descend(self.loss(inputs, targets), len(targets))

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
                    if not math.isfinite(self._descend(loss, 1)):
                        break
                self.step(validation)
        finally:
            candidates.close()

    def _descend(self, loss: Tensor, weight: int) -> float:
        """One step of the optimizer; returns the loss, and where that is no finite number takes no step."""
        value = float(loss.detach())
        if not math.isfinite(value):
            self.diverged = True
            return value
        self.optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        self.optimizer.step()
        self.lr_scheduler.step()
        self._progress.total += value * weight
        self._progress.rows += weight
        return value

    def step(self, validation: float) -> Step:
        """Say the validation score after an epoch; ends phases, grows, and keeps the best state."""
        if self.phase is None:
            raise TrainingError("growth has ended; there is nothing to step")
        self.diverged = self.diverged or not math.isfinite(validation)
        self._progress.epochs += 1
        self._epochs += 1
        improved = not self.diverged and self._keep_if_best(validation)
        self.observer.on_epoch(self._record(validation), self.phase.epochs)
        ended = self.diverged or self._progress.epochs >= self.phase.epochs
        if ended:
            self._end_phase()
        return Step(self.finished, ended, improved)

    def interrupt(self, why: str) -> None:
        """End growth now; the best state stays."""
        self._kept.settle()
        self.phase, self.stopped, self.interrupted = None, why, True

    def restore_best(self) -> None:
        """Bring the model back, in place, to the best validated state, which may be the one given."""
        surgery.put_back(self.model, self.best.plan, self.best.state, self.build)

    def _keep_if_best(self, validation: float) -> bool:
        assert self.phase is not None
        if self._candidates is not None:
            return False
        if not self.recipe.keeps(self._progress.epochs, self.phase.epochs):
            self._kept.pass_by(validation, lambda: self._now(validation))
            return False
        self._progress.best = max(self._progress.best, validation)
        better = self._kept.see(validation, self.phase.cycle, lambda: self._now(validation))
        self._progress.improved = self._progress.improved or better
        return better

    def _now(self, validation: float) -> Best:
        assert self.phase is not None
        return Best(validation, self.model.plan, self.model.snapshot(), self.phase.cycle)

    def _record(self, validation: float) -> EpochRecord:
        assert self.phase is not None
        rate = float(self.lr_scheduler.get_last_lr()[0])
        done = self._progress
        mean = done.total / done.rows if done.rows else math.nan
        done.total, done.rows = 0.0, 0
        return EpochRecord(self.arm, self.seed, self.phase.cycle, self.phase.kind, self._epochs, mean, validation, rate)

    def _end_phase(self) -> None:
        assert self.phase is not None
        note, ends = "", False
        if self.diverged:
            self._kept.settle()
            note, ends = f"the loss became NaN or infinite in cycle {self.phase.cycle}", True
        elif self._candidates is not None:
            before = len(self.model.plan.grafts)
            note = self._candidates.install(self.held_out or ())
            ends = len(self.model.plan.grafts) == before
            note = f"no candidate beat chance; {note}" if ends else note
        self._write(note, ends)
        self._advance()

    def _write(self, note: str, ends: bool) -> None:
        assert self.phase is not None
        record = PhaseRecord(
            arm=self.arm,
            seed=self.seed,
            cycle=self.phase.cycle,
            phase=self.phase.kind,
            epochs=self._progress.epochs,
            validation=self._progress.best if math.isfinite(self._progress.best) else None,
            improved=self._progress.improved,
            parameters=self.model.parameter_count(),
            dendrites=len(self.model.plan.grafts),
            note=note,
            ends_growth=ends,
        )
        self.history.append(record)
        self.observer.on_phase(record)

    def _advance(self) -> None:
        """Begin the next phase, from the best state, or end growth."""
        self.phase = self.schedule.next(self.history)
        self._progress, self._candidates = Progress(), None
        self._kept.begin()
        if self.phase is None:
            self.stopped = self.schedule.why(self.history)
            return
        if self.phase.grow or not self.additions:
            self.restore_best()
        if self.phase.grow and not self._grow():
            limit = "" if self.max_parameters is None else f" fits into {self.max_parameters:,} parameters"
            self.phase, self.stopped = None, f"no further dendrite{limit or ' was asked for'}"
            return
        if self._candidates is None:
            if self.recipe.shrink < 1:
                shrink(self.model, self.recipe.shrink)
            self._start_optimizer(self.rule.trainable(self.model), self.phase.epochs * self.steps_per_epoch)
            self._set_mode()

    def _grow(self) -> bool:
        assert self.phase is not None
        wanted = surgery.affordable(self.model, self.additions, self.build, self.max_parameters)
        if not wanted:
            return False
        left = [f"{graft.kind} at {graft.site}" for graft in self.additions if graft not in wanted]
        if left:
            self.observer.on_warning(f"the limit of {self.max_parameters:,} parameters leaves out {', '.join(left)}")
        seed = self.seed * 1000 + self.phase.cycle
        self._candidates = self.rule.grow(self.model, wanted, self.build, self.criterion, seed=seed)
        return True

    def _start_optimizer(self, parameters: Sequence[nn.Parameter], steps: int) -> None:
        if not parameters:
            raise TrainingError("no parameter of the model may be trained: every requires_grad is False")
        recipe = self.recipe
        self.optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: recipe.rate(step, steps))

    def _set_mode(self) -> None:
        """A network that learns is in training; one that stands still is as it is in evaluation."""
        training = not self.rule.freeze
        if self.model.training != training:
            self.model.train(training)
