"""How a model grows: which phase it is in, what it gains, which states are kept, and the way back to them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from graftkit import surgery
from graftkit.contracts import Build, Criterion, GrowthSchedule, Inputs, Observer, Phase
from graftkit.core.errors import TrainingError
from graftkit.core.records import EpochRecord, PhaseRecord
from graftkit.learning import Candidates, Rule
from graftkit.model import GraftedModel
from graftkit.plan import Graft, GraftPlan
from graftkit.training.keeping import Best, Keeper, bests_from_state, bests_to_state, may_keep
from graftkit.training.progress import Progress, Step

_PLAIN = ("stopped", "trouble", "diverged", "interrupted", "pace", "_epochs")  # attributes that are plain values
SLOWER = 0.1  # what the learning rate is multiplied by, once, where numbers went wrong


class Growth:
    """A model's growth, whoever trains it: `step` takes a validation score an epoch and does the rest.

    The best state is the best validated of each phase's last epochs (`settled`), of equal ones the latest. Where a
    loss or a weight is no finite number, the phase goes on from its last good state at a tenth of the learning rate;
    a second time ends growth.

    Args:
        model: grafted in place.
        additions: what one cycle grafts.
        rule, schedule: how dendrites learn, and when which phase comes.
        build: makes the dendrite that a graft asks for.
        criterion: the loss, (outputs, targets) to one number.
        baseline: the validation score of the model as given; higher is better. Minus infinity: it is untrained.
        settled: share of a phase's epochs, at its end, whose states may be kept.
        held_out: rows kept from training, for a rule with a dendrite phase.
        max_parameters: growth never goes beyond; None for no limit.
        arm: what the records call it.
        seed: decides fresh weights; every other randomness is the caller's.

    Raises:
        TrainingError: the baseline is no number, or a rule's held-out rows are missing.
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
        settled: float,
        held_out: Iterable[tuple[Inputs, Tensor]] | None = None,
        max_parameters: int | None = None,
        observer: Observer | None = None,
        arm: str = "grafted",
        seed: int = 0,
    ):
        if math.isnan(baseline) or baseline == math.inf:
            raise TrainingError(f"the model as given scores {baseline} on the validation rows; look at its weights")
        if "dendrite" in rule.phases and additions and held_out is None:
            raise TrainingError(
                "the rule tests dendrites on held-out rows, but the training data are a loader; give a dataset"
            )
        self.model, self.additions, self.rule, self.schedule = model, tuple(additions), rule, schedule
        self.build, self.criterion, self.held_out = build, criterion, held_out
        self.max_parameters, self.settled = max_parameters, settled
        self.observer, self.arm, self.seed = observer or Observer(), arm, seed
        self.history: list[PhaseRecord] = []
        self.stopped = ""
        self.trouble = ""  # what went wrong and was mended, in words
        self.diverged = self.interrupted = False
        self.phase: Phase | None = None
        self.pace = 1.0  # what learning rates are multiplied by
        self._finite = {name for name, b in model.named_buffers() if b.is_floating_point() and b.isfinite().all()}
        self._kept = Keeper(Best(baseline, model.plan, model.snapshot(), cycle=0))
        self._began: Best | None = None  # where the phase began, if that is not the best state, grown
        self._epochs = 0
        self._progress = Progress()
        self._candidates: Candidates | None = None
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

    def step(self, validation: float) -> Step:
        """Say the validation score after an epoch; ends phases, grows, and keeps the best state."""
        if self.phase is None:
            raise TrainingError("growth has ended; there is nothing to step")
        self.diverged = self.diverged or not math.isfinite(validation) or not self._sound()
        self._progress.epochs += 1
        self._epochs += 1
        self._progress.scores.append(validation)
        grafted = len(self.model.plan.grafts)
        improved = not self.diverged and self._keep_if_best(validation)
        self.observer.on_epoch(self._record(validation), self.phase.epochs)
        ended = self.diverged or self._over()
        if self.diverged and not self.trouble and self._candidates is None:
            self._again()
            ended = False
        elif ended:
            self._end_phase()
        grew = ended and self.phase is not None and self.phase.grow
        return Step(self.finished, ended, improved, grew=grew or len(self.model.plan.grafts) > grafted)

    def interrupt(self, why: str) -> None:
        """End growth now; the best state stays."""
        self._kept.settle()
        self.phase, self.stopped, self.interrupted = None, why, True

    def restore_best(self) -> None:
        """Bring the model back, in place, to the best validated state, which may be the one given."""
        self._put_back(self.best)

    def state(self) -> dict[str, Any]:
        """Everything that `resume` needs to go on from here, for `Checkpoints`; between epochs, not within one."""
        return {
            "plan": self.model.plan.to_json(),
            "model": self.model.state_dict(),
            "kept": bests_to_state({**self._kept.roles(), "began": self._began}),
            "history": [asdict(record) for record in self.history],
            "progress": asdict(self._progress),
            "numbers": {name: getattr(self, name) for name in _PLAIN},
            "ended": self.phase is None,
        }

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from where `state` was taken, with the same model, additions, rule and schedule."""
        self.history[:] = [PhaseRecord(**record) for record in state["history"]]
        roles = bests_from_state(state["kept"])
        self._began = roles.pop("began")
        self._kept.take(roles)
        self._progress = Progress(**state["progress"])
        for name, value in state["numbers"].items():
            setattr(self, name, value)
        surgery.put_back(self.model, GraftPlan.from_json(state["plan"]), state["model"], self.build)
        self.phase = None if state["ended"] else self.schedule.next(self.history)
        self._candidates = None
        if self.phase is not None and self.phase.kind == "dendrite":
            self._grow()

    def begin(self, epochs: int, *, anew: bool) -> None:
        """Get ready to learn for so many epochs; `anew` at the beginning of a phase, not where one is mended."""
        raise NotImplementedError

    def learned(self) -> tuple[float, float]:
        """(mean loss since the last call, learning rate now)."""
        raise NotImplementedError

    def _sound(self) -> bool:
        """Whether every weight is a finite number, and every buffer that was: accuracy is one where outputs are NaN."""
        buffers = (b for name, b in self.model.named_buffers() if name in self._finite)
        return all(bool(torch.isfinite(tensor).all()) for tensor in (*self.model.parameters(), *buffers))

    def _over(self) -> bool:
        assert self.phase is not None
        done = self._progress
        return done.epochs >= self.phase.epochs or self.schedule.over(self.phase, done.scores)

    def _put_back(self, state: Best) -> None:
        surgery.put_back(self.model, state.plan, state.state, self.build)

    def _keep_if_best(self, validation: float) -> bool:
        assert self.phase is not None
        if self._candidates is not None:
            return False
        done = self._progress
        if not may_keep(done.epochs, self.phase.epochs, self.settled):
            self._kept.pass_by(validation, lambda: self._now(validation))
            return False
        done.best = max(done.best, validation)
        better = self._kept.see(validation, self.phase.cycle, lambda: self._now(validation))
        done.improved = done.improved or better
        return better

    def _now(self, validation: float) -> Best:
        assert self.phase is not None
        return Best(validation, self.model.plan, self.model.snapshot(), self.phase.cycle)

    def _record(self, validation: float) -> EpochRecord:
        assert self.phase is not None
        mean, rate = self.learned()
        return EpochRecord(self.arm, self.seed, self.phase.cycle, self.phase.kind, self._epochs, mean, validation, rate)

    def _again(self) -> None:
        """Go on from the phase's last good state, more slowly; the epoch that went wrong does not count."""
        assert self.phase is not None
        self.trouble = (
            f"the loss became NaN or infinite in cycle {self.phase.cycle}: it went on from the last good state at"
            f" {SLOWER:g} times the learning rate"
        )
        self.observer.on_warning(self.trouble)
        self._progress.note = self.trouble
        self.diverged, self.pace = False, self.pace * SLOWER
        self._progress.epochs -= 1
        self._progress.scores.pop()
        good = self._kept.of_phase or self._began
        if good is not None:
            self._put_back(good)
        else:
            self.restore_best()
            if self.phase.grow:
                self._grow()
        if self._kept.of_phase is None:  # from its beginning
            self._progress = Progress(note=self.trouble)
        self.begin(self.phase.epochs - self._progress.epochs, anew=self._kept.of_phase is None)

    def _end_phase(self) -> None:
        assert self.phase is not None
        note, ends = self._progress.note, False
        if self.diverged:
            self._kept.settle()
            again = " again, at a lower learning rate" if self.trouble else ""
            note, ends = f"the loss became NaN or infinite in cycle {self.phase.cycle}{again}", True
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
        self._progress, self._candidates, self._began = Progress(), None, None
        self._kept.begin()
        if self.phase is None:
            self.stopped = self.schedule.why(self.history)
            return
        from_best = self.phase.grow or not self.additions
        if from_best:
            self.restore_best()
        if self.phase.grow and not self._grow():
            limit = "" if self.max_parameters is None else f" fits into {self.max_parameters:,} parameters"
            self.phase, self.stopped = None, f"no further dendrite{limit or ' was asked for'}"
            return
        if self._candidates is None:
            if self.history and not from_best:
                self._began = self._now(math.nan)
            self.begin(self.phase.epochs, anew=True)

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
