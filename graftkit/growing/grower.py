"""Dendrites in a training loop of one's own: one object that is told a validation score after each epoch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from graftkit import ranks, surgery
from graftkit.contracts import Data, GrowthSchedule, Observer
from graftkit.core import options
from graftkit.core.errors import DataError, PlanError, RunError, TrainingError
from graftkit.core.records import PhaseRecord
from graftkit.dendrites import build_dendrite
from graftkit.folding import DEFAULT_OPSET
from graftkit.growing import telling
from graftkit.growing.grown import Grown
from graftkit.growing.in_loop import InLoop
from graftkit.growing.making import growable
from graftkit.growing.users_optimizer import UsersOptimizer
from graftkit.plan import GraftPlan
from graftkit.planning import parameter_limit, plan_cycle
from graftkit.rules import Gradient
from graftkit.schedules import SCHEDULES, Plateau, When
from graftkit.shipping import export
from graftkit.training import Checkpoints, Step, random_states, set_random_states

_CHECKPOINT = "grower"
Schedule = GrowthSchedule | Callable[[Sequence[float]], bool] | str


class Grower:
    """Grows a model while your own loop trains it.

    ```python
    grower = gk.Grower(model, example_inputs, optimizer)
    for epoch in range(200):
        train_one_epoch(grower.model, optimizer)
        if grower.step(validation_score).finished:
            break
    grower.export("model.onnx")
    ```

    `model` stays one object for life, and the optimizer yours: it gains groups for new parameters, and loses them again
    where dendrites do not help. The best validated state is kept, and is what the model is in the end.

    Args:
        model: any module that can be traced; not wrapped for several processes (wrap `grower.model`). Or what
            `growable` made of one.
        example_inputs: at least two rows: a tensor, a tuple of positional arguments, or a dict of keyword arguments;
            None for what is `growable`.
        optimizer: any of torch's that takes groups of parameters, made of the model's parameters.
        lr_scheduler: its learning-rate schedule, or several.
        dendrites, sites: what is grafted where, as `graftkit augment` takes them.
        schedule: when dendrites come: "plateau:patience=5,dendrites=2" or another of `graftkit.schedules`, or a
            function of the scores since the last growth, saying whether it is time.
        restart: whether the optimizer's moments are cleared and the learning-rate schedule begins again with each
            growth, as they were when the Grower was made; False leaves both alone.
        score: the validation score of the model as it is; None for one that is not trained yet.
        mode: "max" where a higher score is better, "min" for a loss.
        max_parameters: growth never goes beyond: a number, or "+20%".
        join, mask, output, dynamic: as `graftkit.trace` and `graftkit.make_plan` take them.
        seed: decides fresh dendrites.
        observer: where progress goes; to Python's logging, under "graftkit", where it is None.

    Raises:
        TraceError: the module cannot be traced, or is a wrapper around the one to be grown.
        PlanError: there is no such site, dendrite or schedule.
        TrainingError: the optimizer cannot take parameters in.
    """

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Any,
        optimizer: Optimizer,
        *,
        lr_scheduler: LRScheduler | Sequence[LRScheduler] = (),
        dendrites: str | Sequence[str] = (),
        sites: str | Sequence[str] = (),
        schedule: Schedule | None = None,
        restart: bool = True,
        score: float | None = None,
        mode: Literal["max", "min"] = "max",
        max_parameters: int | str | None = None,
        join: str = "activation",
        mask: str | None = None,
        output: str | None = None,
        dynamic: str = "auto",
        seed: int = 0,
        observer: Observer | None = None,
    ):
        if mode not in ("max", "min"):
            raise TrainingError(f"mode {mode!r}: choose max, where a higher score is better, or min")
        self._sign = 1.0 if mode == "max" else -1.0
        users = UsersOptimizer(optimizer, _listed(lr_scheduler))
        whole = model if isinstance(model, Grown) else growable(model, example_inputs, output=output, dynamic=dynamic)
        given = {id(p) for group in optimizer.param_groups for p in group["params"]}
        if not given & {id(p) for p in whole.parameters()}:
            raise TrainingError("the optimizer has no parameter of this model; make it of model.parameters()")
        grafted, rule = whole.grafted, Gradient()
        plan, _ = plan_cycle(
            grafted.traced, dendrites=_texts(dendrites), sites=_texts(sites), rule=rule, join=join, mask=mask
        )
        surgery.check_reached(grafted, plan.grafts, build_dendrite)
        self.model = whole
        self._growth = InLoop(
            grafted,
            users,
            restart=restart,
            additions=plan.grafts,
            rule=rule,
            sign=self._sign,
            schedule=Plateau() if schedule is None else _schedule(schedule, self._sign),
            build=build_dendrite,
            criterion=_no_criterion,
            baseline=-float("inf") if score is None else self._sign * score,
            max_parameters=parameter_limit(max_parameters, grafted.parameter_count()),
            observer=telling.signed_observer(observer or telling.to_logging(), self._sign),
            arm="grown",
            seed=seed,
        )

    def step(self, score: float, *, loss: float = float("nan")) -> Step:
        """Say the validation score after an epoch, the same way for all epochs; grows where it is time.

        Args:
            score: a number; among several processes their mean counts, and all decide alike.
            loss: the training loss, for the record alone.

        Returns:
            Whether growth has `finished` (the model is then in its best state), whether it `grew` (the model is then
            in its best state, with new dendrites), whether this was the best epoch so far (`improved`).

        Raises:
            TrainingError: growth has ended; or the score or a weight was no finite number for the second time. After
                the first time the model is back in its last good state, at a tenth of the learning rate.
        """
        return self._growth.told(float(score), float(loss))

    @property
    def finished(self) -> bool:
        """Whether growth has ended."""
        return self._growth.finished

    @property
    def stopped(self) -> str:
        """Why growth ended, in words; empty before."""
        return self._growth.stopped

    @property
    def best(self) -> float:
        """The best validation score so far."""
        return self._sign * self._growth.best.validation

    @property
    def plan(self) -> GraftPlan:
        """What is grafted where, now."""
        return self._growth.model.plan

    @property
    def history(self) -> tuple[PhaseRecord, ...]:
        """The phases that have ended."""
        return tuple(telling.signed(record, self._sign) for record in self._growth.history)

    def finish(self, why: str = "ended by the caller") -> None:
        """End growth, if it has not, with the model in its best state."""
        if not self._growth.finished:
            self._growth.interrupt(why)
            self._growth.close()

    def state_dict(self) -> dict[str, Any]:
        """Model, growth, optimizer and schedules as dicts of tensors and plain values; without random numbers."""
        return self._growth.state()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`, with a Grower made as in the first run.

        Raises:
            TrainingError: the optimizer or its schedules are others.
            RunError: the state is of another model or plan.
        """
        before = copy.deepcopy(self._growth.state())
        try:
            self._growth.resume(state)
        except TrainingError:
            self._growth.resume(before)
            raise
        except (RuntimeError, PlanError) as error:
            self._growth.resume(before)
            reason = str(error).splitlines()[0]
            raise RunError(f"the state to go on from is of another model or plan: {reason}") from error

    def scheduler_state_dicts(self) -> list[dict[str, Any]]:
        """The schedules' states without what joined: what they would load before any growth."""
        return self._growth.users.bare_schedules()

    def optimizer_state_dict(self) -> dict[str, Any]:
        """The optimizer's state without what joined it: what it would load before any growth."""
        return self._growth.users.bare_state()

    def save(self, folder: str | Path, *loaders: DataLoader[Any], epochs: int) -> None:
        """Keep everything that `resume` needs, between two epochs: model, growth, optimizer, schedules, random numbers.

        The last two states are kept, as JSON and safetensors with checksums; of several processes the first one writes.

        Args:
            folder: where the checkpoints go.
            loaders: whose order is to go on, too: those that shuffle with a generator of their own.
            epochs: how many were done: what `resume` returns.

        Raises:
            RunError: it cannot be written.
        """
        random = ranks.gathered(random_states(*loaders))
        if ranks.number() == 0:
            state = {"growth": self.state_dict(), "random": random, "epochs": epochs}
            Checkpoints(Path(folder), _CHECKPOINT).write(state)

    def resume(self, folder: str | Path, *loaders: DataLoader[Any]) -> int:
        """Go on from the last `save`, bit for bit, with a Grower made as in the first run; returns the epochs done.

        Where there is no checkpoint, nothing happens and 0 is returned. A broken one is told in a warning, and the one
        before it is taken.

        Raises:
            TrainingError: the optimizer, its schedules or the loaders are others.
            RunError: the checkpoint is of another model or plan.
        """
        state = Checkpoints(Path(folder), _CHECKPOINT).read(self._growth.observer.on_warning)
        if state is None:
            return 0
        self.load_state_dict(state["growth"])
        if ranks.number() < len(state["random"]):
            set_random_states(state["random"][ranks.number()], *loaders)
        return int(state["epochs"])

    def export(self, path: str | Path, *, rows: Data | None = None, opset: int = DEFAULT_OPSET) -> Path:
        """Write the best state as one plain ONNX file that was verified; ends growth.

        Args:
            path: where to write.
            rows: what `graftkit.load_data` gives, whose validation rows are compared, besides the example and random
                ones; None for those alone.
            opset: 17 to 25.

        Raises:
            DataError: the rows are something else.
            ExportError, MismatchError: then nothing is written.
        """
        if rows is not None and not isinstance(rows, Data):
            raise DataError(
                f"rows are what graftkit.load_data gives, not {type(rows).__name__}; leave them out, or load them so"
            )
        self.finish()
        return export(self._growth.model, path, rows=rows, opset=opset)


def _schedule(schedule: Schedule, sign: float) -> GrowthSchedule:
    if isinstance(schedule, str):
        return options.parse(SCHEDULES, schedule)
    if isinstance(schedule, GrowthSchedule):
        return schedule
    return When(grow=lambda scores: schedule([sign * score for score in scores]))


def _listed(schedules: LRScheduler | Sequence[LRScheduler] | None) -> Sequence[LRScheduler]:
    return schedules if isinstance(schedules, Sequence) else [] if schedules is None else [schedules]


def _texts(value: str | Iterable[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _no_criterion(output: Tensor, target: Tensor) -> Tensor:
    raise TrainingError("a rule that studies needs rows and a loss, which the Grower was not given")
