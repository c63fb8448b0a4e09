"""A fit that is killed anywhere goes on to the very result of one that is not."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from trainer_tools import dataset, same

from graftkit import surgery, tracing, training
from graftkit.contracts import Data, Observer
from graftkit.core.errors import RunError
from graftkit.costs import parse_budget
from graftkit.dendrites import build_dendrite
from graftkit.fitting import FitResult, FolderJournal, Settings, fit_model
from graftkit.model import GraftedModel
from graftkit.plan import GraftPlan
from graftkit.planning import plan_cycle
from graftkit.rules import Correlation, Gradient
from graftkit.training import Recipe

DATA = Data(dataset(), dataset(seed=2), dataset(seed=3), "classes", 2, "made up")


LARGE = replace(DATA, train=dataset(600))  # of which enough are held out for dendrites to be installed


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.drop, self.head = (
            nn.Linear(4, 6),
            nn.BatchNorm1d(6),
            nn.Dropout(0.1),
            nn.Linear(6, 2),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(torch.relu(self.norm(self.first(x)))))


@pytest.fixture(scope="module")
def traced() -> tuple[GraftedModel, dict[str, Tensor]]:
    torch.manual_seed(0)
    model = surgery.empty(tracing.trace_module(Net(), (torch.randn(2, 4),), name="net"))
    return model, model.snapshot()


@pytest.fixture
def model(traced: tuple[GraftedModel, dict[str, Tensor]]) -> Iterator[GraftedModel]:
    yield traced[0]
    surgery.put_back(traced[0], GraftPlan(), traced[1], build_dendrite)


class Killed(BaseException):
    """The process died here."""


class Death:
    """A loss and a metric that die at their n-th call; calls are counted on."""

    def __init__(self, at: int | None):
        self.calls, self.losses, self.at = 0, 0, at

    def _count(self) -> None:
        self.calls += 1
        if self.calls == self.at:
            raise Killed

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self._count()
        self.losses += 1
        return functional.cross_entropy(outputs, targets)

    def metric(self, outputs: Tensor, targets: Tensor) -> float:
        self._count()
        return training.accuracy(outputs, targets)


def fitted(
    model: GraftedModel,
    state: dict[str, Tensor],
    death: Death,
    journal: FolderJournal | None,
    told: list[object],
    *,
    rule: Any = None,
    budget: str | None = None,
    shrink: float = 1.0,
    cycles: int = 2,
    data: Data = DATA,
) -> FitResult:
    surgery.put_back(model, GraftPlan(), state, build_dendrite)
    model.zero_grad(set_to_none=True)
    torch.manual_seed(123)  # what is outside has to make no difference
    settings = Settings(
        epochs=4,
        cycles=cycles,
        batch_size=32,
        recipe=Recipe(learning_rate=0.05, shrink=shrink),
        seeds=2 if cycles == 1 else 1,
        margin=0.0,
    )
    rule = rule or Gradient()
    every = budget is not None
    plan, _ = plan_cycle(model.traced, dendrites=("full",) if not every else (), rule=rule, every=every)
    observer = Observer(on_phase=told.append, on_warning=told.append)
    return fit_model(
        model,
        data,
        plan,
        rule,
        death.loss,
        death.metric,
        settings,
        observer,
        budget=None if budget is None else parse_budget(budget),
        journal=journal,
    )


CASES: dict[str, dict[str, Any]] = {
    "two cycles": {},
    "two seeds": {"cycles": 1},
    "correlation": {"rule": Correlation(pool=2, false_positives=0.5), "data": LARGE},
    "shrunk, two controls": {"shrink": 0.5},
    "a budget": {"budget": "parameters=+60%", "cycles": 1},
}


@pytest.mark.parametrize("case", CASES)
def test_killed_anywhere_it_comes_to_the_same_end(
    case: str, model: GraftedModel, traced: tuple[GraftedModel, dict[str, Tensor]], tmp_path: Path
) -> None:
    how, given = CASES[case], traced[1]
    whole = Death(None)
    told: list[object] = []
    expected = fitted(model, given, whole, None, told, **how)
    after = model.snapshot()
    assert len(expected.phases) > 1 and any(phase.dendrites for phase in expected.phases)
    moments = range(2, whole.calls + 1, max(1, whole.calls // 8))
    for moment in moments:
        journal = FolderJournal(tmp_path / f"{moment}", pytest.fail, always=True)
        with pytest.raises(Killed):
            fitted(model, given, Death(moment), journal, [], **how)
        again: list[object] = []
        second = Death(max(2, (whole.calls - moment) // 2))  # and dies once more
        with pytest.raises(Killed):
            fitted(model, given, second, journal, [], **how)
        result = fitted(model, given, Death(None), journal, again, **how)
        assert again == told, moment
        assert same(model.snapshot(), after), moment
        for field in fields(FitResult):
            if field.name not in ("model", "epochs", "states"):
                assert getattr(result, field.name) == getattr(expected, field.name), (moment, field.name)
        assert repr(result.epochs) == repr(expected.epochs), moment  # NaN is NaN there
        assert result.states.keys() == expected.states.keys() and "control" in result.states, moment
        for name, best in expected.states.items():
            assert result.states[name].plan == best.plan and same(result.states[name].state, best.state), (moment, name)


def test_what_was_done_is_not_done_again(
    model: GraftedModel, traced: tuple[GraftedModel, dict[str, Tensor]], tmp_path: Path
) -> None:
    journal = FolderJournal(tmp_path, pytest.fail, always=True)
    whole = Death(None)
    fitted(model, traced[1], whole, journal, [])
    again = Death(None)
    fitted(model, traced[1], again, journal, [])
    assert whole.losses > 0 and again.losses == 0
    assert all("-ended." in path.name for path in tmp_path.iterdir())


def test_a_mended_phase_is_resumed_at_its_pace(
    model: GraftedModel, traced: tuple[GraftedModel, dict[str, Tensor]], tmp_path: Path
) -> None:
    class Faulty(Death):
        def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
            value = super().loss(outputs, targets)
            return value * math.nan if self.faults and self.calls == 6 else value

        faults = True

    told: list[object] = []
    expected = fitted(model, traced[1], Faulty(None), None, told)
    after = model.snapshot()
    assert expected.troubles and "went on from the last good state" in expected.troubles[0]
    journal = FolderJournal(tmp_path, pytest.fail, always=True)
    with pytest.raises(Killed):
        fitted(model, traced[1], Faulty(14), journal, [])
    healthy = Faulty(None)
    healthy.faults = False
    result = fitted(model, traced[1], healthy, journal, [])
    assert same(model.snapshot(), after) and result.troubles == expected.troubles


def test_where_nothing_can_be_written_training_goes_on(
    model: GraftedModel, traced: tuple[GraftedModel, dict[str, Tensor]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: object, state: object) -> None:
        raise RunError("the folder cannot be written: No space left on device")

    monkeypatch.setattr("graftkit.training.Checkpoints.write", full)
    warned: list[str] = []
    journal = FolderJournal(tmp_path, warned.append, always=True)
    result = fitted(model, traced[1], Death(None), journal, [])
    assert result.phases and len(warned) == 1  # once and "No space left on device; the run goes on" in warned[0]


def test_an_end_that_cannot_be_written_leaves_the_state_on_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = FolderJournal(tmp_path, lambda text: None, always=True)
    journal.keep("0 grafted", lambda: {"epoch": 3})

    def full(self: object, state: object) -> None:
        raise RunError("the folder cannot be written: No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("graftkit.training.Checkpoints.write", full)
        journal.end("0 grafted", {"arm": 1})
    assert journal.now("0 grafted") == {"epoch": 3} and journal.ended("0 grafted") is None
    journal.end("0 grafted", {"arm": 1})
    assert journal.now("0 grafted") is None and journal.ended("0 grafted") == {"arm": 1}


def test_states_are_written_as_often_as_takes_a_small_share_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, written = [0.0], []

    def write(self: object, state: object) -> None:
        written.append(now[0])
        now[0] += 1.0

    monkeypatch.setattr("graftkit.training.Checkpoints.write", write)
    monkeypatch.setattr("graftkit.fitting.journal.time.monotonic", lambda: now[0])
    journal = FolderJournal(tmp_path, pytest.fail)
    state: Callable[[], dict[str, Any]] = dict
    for _ in range(100):
        journal.keep("0 grafted", state)
        now[0] += 1.0
    assert written[0] == 0.0 and len(written) == 5  # a second each, and 20 between them
