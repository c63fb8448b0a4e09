"""The Grower in a loop of one's own: the optimizer stays the user's, the model one object, the best state is kept."""

from __future__ import annotations

import copy
import logging
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

import graftkit as gk
from graftkit.contracts import Observer
from graftkit.core.errors import PlanError, RunError, TraceError, TrainingError
from graftkit.schedules import Rounds

ROWS = torch.randn(64, 4, generator=torch.Generator().manual_seed(1))
WORDS = (ROWS[:, 0] * ROWS[:, 1] > 0).long()


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2))


def train(model: nn.Module, optimizer: Optimizer, *, steps: int = 3) -> None:
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        cross_entropy(model(ROWS), WORDS).backward()
        optimizer.step()


def grower(model: nn.Module, optimizer: Optimizer, **asked: Any) -> gk.Grower:
    options = {"schedule": Rounds(epochs=1, dendrites=2), "dendrites": "full", "sites": ("0", "3"), **asked}
    return gk.Grower(model, ROWS[:2], optimizer, **options)


def everything(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(state: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return state.keys() == other.keys() and all(torch.equal(state[name], other[name]) for name in state)


# ── the optimizer ────────────────────────────────────────────────────────────────────────────────


def test_the_optimizer_gains_groups_with_its_layers_settings_and_loses_them_on_rollback() -> None:
    model = net()
    first, last = [*model[0].parameters(), *model[1].parameters()], [*model[3].parameters()]
    groups = [{"params": first, "lr": 0.1, "weight_decay": 0.3}, {"params": last, "lr": 0.01}]
    optimizer = torch.optim.AdamW(groups)
    growing = grower(model, optimizer)
    whole = growing.model
    assert len(optimizer.param_groups) == 2
    for score, grafts in ((0.5, 2), (0.6, 4)):
        train(whole, optimizer)
        assert growing.step(score).grew and len(growing.plan.grafts) == grafts and growing.model is whole
    assert [(g["lr"], g["weight_decay"]) for g in optimizer.param_groups[2:]] == [(0.1, 0.3), (0.01, 0.01)] * 2
    listed = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(listed) == len(set(listed)) and set(listed) == set(whole.parameters())
    before = [p.detach().clone() for p in listed]
    train(whole, optimizer)
    assert all(not torch.equal(p, old) for p, old in zip(listed, before, strict=True))
    assert growing.step(0.55).finished  # the second growth did not help: its dendrites leave
    assert len(optimizer.param_groups) == 4 and len(growing.plan.grafts) == 2
    listed = [p for group in optimizer.param_groups for p in group["params"]]
    assert set(listed) == set(whole.parameters()) and set(optimizer.state) <= set(listed)
    assert {id(p) for p in model.parameters()} <= {id(p) for p in listed}
    train(whole, optimizer)


@pytest.mark.parametrize("restart", [True, False])
def test_restart_begins_the_optimizer_and_its_schedule_again_in_place(restart: bool) -> None:
    model = net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    schedule = lr_scheduler.CosineAnnealingLR(optimizer, 8)
    state = optimizer.state
    growing = grower(model, optimizer, lr_scheduler=schedule, restart=restart, schedule="rounds:epochs=3")
    course = []
    for epoch in range(6):
        course.append(optimizer.param_groups[0]["lr"])
        train(growing.model, optimizer)
        schedule.step()
        assert growing.step(epoch / 10).grew == (epoch in (2, 5))
        if epoch == 2:
            assert optimizer.state is state and bool(state) != restart
            assert schedule.last_epoch == (0 if restart else 3)
    anew = [0.05 * (1 + math.cos(math.pi * epoch / 8)) for epoch in range(6)]
    assert course == pytest.approx(anew[:3] * 2 if restart else anew)
    assert len({group["lr"] for group in optimizer.param_groups}) == 1


def two_rates(optimizer: Optimizer) -> LRScheduler:
    return lr_scheduler.LambdaLR(optimizer, [lambda step: 0.9**step, lambda step: 0.5**step])


SCHEDULES: dict[str, Callable[[Optimizer], LRScheduler]] = {
    "lambda": two_rates,
    "multiplicative": lambda o: lr_scheduler.MultiplicativeLR(o, lambda step: 0.9),
    "step": lambda o: lr_scheduler.StepLR(o, 2),
    "multistep": lambda o: lr_scheduler.MultiStepLR(o, [1, 3]),
    "constant": lambda o: lr_scheduler.ConstantLR(o, total_iters=3),
    "linear": lambda o: lr_scheduler.LinearLR(o, total_iters=3),
    "exponential": lambda o: lr_scheduler.ExponentialLR(o, 0.8),
    "polynomial": lambda o: lr_scheduler.PolynomialLR(o, 9),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 9),
    "warm restarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 2),
    "cyclic": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.2, step_size_up=2, cycle_momentum=True),
    "one cycle": lambda o: lr_scheduler.OneCycleLR(o, [0.2, 0.4], total_steps=20),
    "plateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0, min_lr=[1e-4, 1e-5]),
    "sequential": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, total_iters=2), lr_scheduler.CosineAnnealingLR(o, 9)], milestones=[2, 5][:1]
    ),
    "chained": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.LinearLR(o, total_iters=2), lr_scheduler.ExponentialLR(o, 0.9)], optimizer=o
    ),
}


@pytest.mark.parametrize("restart", [True, False])
@pytest.mark.parametrize("name", SCHEDULES)
def test_dendrites_follow_their_layer_through_every_schedule(name: str, restart: bool) -> None:
    def course(*, grows: bool) -> list[list[float]]:
        model = net()
        groups = [{"params": [*model[0].parameters(), *model[1].parameters()]}, {"params": [*model[3].parameters()]}]
        optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
        schedule = SCHEDULES[name](optimizer)
        growing = grower(model, optimizer, lr_scheduler=schedule, restart=restart, schedule="rounds:epochs=3,tries=9")
        found = []
        for epoch in range(8):
            train(growing.model, optimizer, steps=1)
            schedule.step(*([0.5] if name == "plateau" else []))
            found.append([group["lr"] for group in optimizer.param_groups])
            if grows:
                growing.step(0.5 + epoch / 100 * (epoch < 4))
        if grows:
            growing.finish()
            assert len(optimizer.param_groups) == 2 + len(growing.plan.grafts)
            schedule.step(*([0.5] if name == "plateau" else []))
        return found

    alone, grown = course(grows=False), course(grows=True)
    assert [len(rates) for rates in grown] == [2] * 3 + [4] * 3 + [6] * 2
    for epoch, rates in enumerate(grown):
        assert rates[2::2] == [rates[0]] * (len(rates) // 2 - 1) and rates[3::2] == [rates[1]] * (len(rates) // 2 - 1)
        assert rates[:2] == pytest.approx(alone[epoch % 3 if restart else epoch])


@pytest.mark.parametrize("name", SCHEDULES)
def test_numbers_that_went_wrong_slow_every_schedule_now_and_after_the_next_growth(name: str) -> None:
    """Ten epochs; the fourth goes wrong, and dendrites come after the seventh."""

    def course(*, wrong: bool) -> list[float]:
        model = net()
        groups = [{"params": [*model[0].parameters(), *model[1].parameters()]}, {"params": [*model[3].parameters()]}]
        optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
        schedule = SCHEDULES[name](optimizer)
        growing = grower(model, optimizer, lr_scheduler=schedule, schedule=f"rounds:epochs={6 if wrong else 7}")
        found = []
        for epoch in range(10):
            train(growing.model, optimizer, steps=1)
            schedule.step(*([0.5] if name == "plateau" else []))
            found.append(optimizer.param_groups[0]["lr"])
            growing.step(math.nan if wrong and epoch == 3 else 0.5 + epoch / 100)
        assert len(growing.plan.grafts) == 2
        return found

    plain, slowed = course(wrong=False), course(wrong=True)
    assert slowed[:4] == plain[:4]
    assert slowed[4:] == pytest.approx([rate / 10 for rate in plain[4:]])


def test_a_growth_leaves_no_gradients_behind() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    growing = grower(model, optimizer)
    train(growing.model, optimizer)
    assert growing.step(0.5).grew and all(p.grad is None for p in growing.model.parameters())


def test_a_schedule_that_was_not_given_is_asked_for() -> None:
    model = net()
    optimizer = torch.optim.AdamW(model.parameters())
    lr_scheduler.StepLR(optimizer, 2)
    with pytest.raises(TrainingError, match="give it to the Grower, too"):
        grower(model, optimizer)


OPTIMIZERS = ("ASGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "SGD")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_takes_dendrites_in(name: str) -> None:
    model = net()
    optimizer = getattr(torch.optim, name)(model.parameters(), lr=0.01)
    growing = grower(model, optimizer)
    train(growing.model, optimizer)
    assert growing.step(0.5).grew
    train(growing.model, optimizer)
    strengths = [p for d in growing.model.grafted.members() for p in d.strengths()]
    assert strengths and all(p.any() for p in strengths)


def test_named_parameters_get_names_and_lose_them() -> None:
    model = net()
    optimizer = torch.optim.AdamW(model.named_parameters(), lr=0.01)
    growing = grower(model, optimizer)
    for score in (0.5, 0.6, 0.7):
        train(growing.model, optimizer)
        growing.step(score)
    names = [name for group in optimizer.param_groups for name in group["param_names"]]
    assert len(names) == len(set(names)) == len([*growing.model.parameters()])
    model = net()
    optimizer = torch.optim.AdamW(model.named_parameters(), lr=0.01)
    growing = grower(model, optimizer, score=0.9)
    for score in (0.5, 0.6):
        growing.step(score)
    assert [len(group["param_names"]) for group in optimizer.param_groups] == [6]


def test_groups_that_came_later_are_refused_before_anything_happens() -> None:
    model = net()
    optimizer = torch.optim.SGD(model[0].parameters(), lr=0.1)
    growing = grower(model, optimizer)
    optimizer.add_param_group({"params": model[3].parameters()})
    with pytest.raises(TrainingError, match=r"had 1 groups of your own.*now has 2"):
        growing.step(0.5)
    assert not growing.plan.grafts and not growing.history


def test_dendrites_in_place_of_others_count_as_growth() -> None:
    model = net()
    growing = grower(model, torch.optim.SGD(model.parameters(), lr=0.1), schedule="rounds:epochs=1,tries=3")
    assert [growing.step(score).grew for score in (0.5, 0.4, 0.4, 0.4)] == [True, True, True, False]


def test_an_optimizer_of_another_model_is_refused() -> None:
    with pytest.raises(TrainingError, match="the optimizer has no parameter of this model"):
        grower(net(), torch.optim.SGD(net().parameters(), lr=0.1))


def test_an_optimizer_of_one_group_is_refused() -> None:
    model = net()
    with pytest.raises(TrainingError, match="LBFGS takes one group"):
        grower(model, torch.optim.LBFGS(model.parameters()))


def test_two_models_in_one_process_do_not_touch() -> None:
    def alone(seed: int) -> dict[str, Tensor]:
        model = net(seed)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        growing = grower(model, optimizer, seed=seed)
        for score in (0.5, 0.6, 0.7):
            train(growing.model, optimizer)
            growing.step(score)
        return everything(growing.model)

    expected = [alone(seed) for seed in (0, 1)]
    models = [net(seed) for seed in (0, 1)]
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1) for model in models]
    both = [grower(m, o, seed=seed) for seed, (m, o) in enumerate(zip(models, optimizers, strict=True))]
    for score in (0.5, 0.6, 0.7):
        for growing, optimizer in zip(both, optimizers, strict=True):
            train(growing.model, optimizer)
        for growing in both:
            growing.step(score)
    assert all(same(everything(g.model), state) for g, state in zip(both, expected, strict=True))


# ── what is kept ─────────────────────────────────────────────────────────────────────────────────


def test_the_best_state_is_what_ships(tmp_path: Path) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    growing = grower(model, optimizer, schedule="rounds:epochs=4")
    states = []
    for score in (0.5, 0.7, 0.6):
        train(growing.model, optimizer)
        assert growing.step(score).improved == (score != 0.6)
        states.append(everything(growing.model))
    file = growing.export(tmp_path / "model.onnx")
    assert growing.finished and growing.stopped == "ended by the caller" and growing.best == 0.7
    assert same(everything(growing.model), states[1])
    session = onnxruntime.InferenceSession(file)
    (given,) = session.run(None, {session.get_inputs()[0].name: ROWS.numpy()})
    torch.testing.assert_close(torch.from_numpy(given), growing.model.eval()(ROWS), rtol=1e-4, atol=1e-5)
    with pytest.raises(TrainingError, match="growth has ended"):
        growing.step(0.9)


def test_nothing_better_than_a_score_that_was_given_leaves_the_model_as_it_was() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = everything(model)
    growing = grower(model, optimizer, score=0.9)
    for score in (0.8, 0.85):
        train(growing.model, optimizer)
        last = growing.step(score)
    assert last.finished and growing.best == 0.9 and not growing.plan.grafts and len(optimizer.param_groups) == 1
    assert same(everything(model), before)


def test_of_losses_the_smallest_is_best() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    growing = grower(model, optimizer, mode="min", score=0.9, schedule="plateau:patience=2")
    said = []
    for score in (0.8, 0.7, 0.75, 0.71):
        said.append(growing.step(score))
    assert [step.improved for step in said] == [True, True, False, False] and said[3].grew and growing.best == 0.7


def test_scores_of_a_loss_are_told_as_they_were_said(caplog: pytest.LogCaptureFixture) -> None:
    model = net()
    seen: list[list[float]] = []
    told: list[float | None] = []

    def when(scores: Any) -> bool:
        seen.append([*scores])
        return scores[-1] < 0.1

    growing = grower(
        model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        mode="min",
        schedule=when,
        observer=Observer(on_phase=lambda record: told.append(record.validation)),
    )
    assert [growing.step(score).grew for score in (0.9, 0.8, 0.05)] == [False, False, True]
    assert seen == [[0.9], [0.9, 0.8], [0.9, 0.8, 0.05]]
    assert growing.history[0].validation == 0.05 and told == [0.05]
    growing.step(math.nan)
    with pytest.raises(TrainingError, match=r"best state \(validation 0\.05\)"):
        growing.step(math.nan)


@pytest.mark.parametrize("kind", [np.float64, np.float32, torch.tensor])
def test_a_score_may_be_any_number(kind: Any, tmp_path: Path) -> None:
    model = net()
    growing = grower(model, torch.optim.SGD(model.parameters(), lr=0.1))
    for epoch, score in enumerate((0.5, 0.75)):
        growing.step(kind(score))
        growing.save(tmp_path, epochs=epoch + 1)
    assert growing.best == 0.75 and type(growing.best) is float


def test_statistics_that_are_no_numbers_go_wrong_too() -> None:
    model = net()
    growing = grower(model, torch.optim.SGD(model.parameters(), lr=0.1), schedule="rounds:epochs=5")
    growing.step(0.5)
    growing.model.train()(ROWS * math.inf)
    assert not growing.step(0.9).improved and growing.best == 0.5
    assert growing.model.eval()(ROWS).isfinite().all()


def test_a_function_says_when() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    seen: list[list[float]] = []

    class Asked:
        def __call__(self, scores: Any) -> bool:
            seen.append([*scores])
            return len(scores) == 2

    growing = grower(model, optimizer, schedule=Asked())
    assert [growing.step(score).grew for score in (0.1, 0.2, 0.3, 0.4)] == [False, True, False, True]
    assert seen == [[0.1], [0.1, 0.2], [0.3], [0.3, 0.4]]


def test_growth_keeps_within_a_limit() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    growing = grower(model, optimizer, max_parameters="+1%")
    step = growing.step(0.5)
    assert step.finished and not step.grew and "no further dendrite fits into" in growing.stopped


@pytest.mark.parametrize("what", ["score", "weight"])
def test_numbers_that_go_wrong_bring_back_the_last_good_state_once(what: str, caplog: pytest.LogCaptureFixture) -> None:
    model = net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    schedule = lr_scheduler.StepLR(optimizer, 100)
    growing = grower(model, optimizer, lr_scheduler=schedule, schedule="rounds:epochs=9", restart=False)
    train(growing.model, optimizer)
    growing.step(0.5)
    good = everything(growing.model)
    train(growing.model, optimizer)
    if what == "weight":
        with torch.no_grad():
            model[0].weight[0, 0] = math.inf
    with caplog.at_level(logging.WARNING, "graftkit"):
        step = growing.step(0.6 if what == "weight" else math.nan)
    assert not (step.finished or step.improved) and "went on from the last good state" in caplog.text
    assert same(everything(growing.model), good) and not optimizer.state
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01)
    schedule.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01)
    with pytest.raises(TrainingError, match=r"again.*best state \(validation 0\.5\).*can be exported"):
        growing.step(math.nan)
    assert growing.finished and same(everything(growing.model), good)


# ── checkpoints ──────────────────────────────────────────────────────────────────────────────────


def looped(folder: Path | None, *, stop: int | None = None) -> tuple[gk.Grower, Optimizer, LRScheduler]:
    """Nine epochs in random order, with dropout, saved after each; `stop` is where the process dies."""
    torch.manual_seed(5)
    model = nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.2), nn.ReLU(), nn.Linear(6, 2))
    groups = [{"params": model[0].parameters(), "lr": 0.05}, {"params": model[3].parameters(), "lr": 0.02}]
    optimizer = torch.optim.AdamW(groups)
    schedule = two_rates(optimizer)
    loader = DataLoader(
        TensorDataset(ROWS, WORDS), batch_size=16, shuffle=True, generator=torch.Generator().manual_seed(2)
    )
    growing = grower(model, optimizer, lr_scheduler=schedule, schedule="rounds:epochs=2,dendrites=9,tries=9")
    done = 0 if folder is None else growing.resume(folder, loader)
    for epoch in range(done, 9):
        if epoch == stop:
            break
        growing.model.train()
        for inputs, targets in loader:
            optimizer.zero_grad()
            cross_entropy(growing.model(inputs), targets).backward()
            optimizer.step()
        schedule.step()
        growing.step(float((growing.model.eval()(ROWS).argmax(1) == WORDS).float().mean()))
        if folder is not None:
            growing.save(folder, loader, epochs=epoch + 1)
    return growing, optimizer, schedule


def test_a_loop_that_dies_goes_on_bit_for_bit(tmp_path: Path) -> None:
    whole, optimizer, schedule = looped(None)
    expected = everything(whole.model)
    assert len(whole.plan.grafts) > 2
    for stop in (1, 3, 4, 8):
        looped(tmp_path / str(stop), stop=stop)
        torch.manual_seed(99)
        again, second, follows = looped(tmp_path / str(stop))
        assert same(everything(again.model), expected) and again.history == whole.history, stop
        state, other = optimizer.state_dict(), second.state_dict()
        assert state["param_groups"] == other["param_groups"] and state["state"].keys() == other["state"].keys()
        assert all(torch.equal(v, other["state"][p][k]) for p, s in state["state"].items() for k, v in s.items())
        assert schedule.state_dict() == follows.state_dict()
        assert len(list((tmp_path / str(stop)).iterdir())) == 4


def test_a_schedule_that_had_begun_before_it_is_resumed_begins_again_at_its_beginning(tmp_path: Path) -> None:
    """As in Lightning, which restores schedules before a callback can take hold of them."""

    def begun(steps: int) -> tuple[gk.Grower, Optimizer, LRScheduler]:
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        schedule = lr_scheduler.ExponentialLR(optimizer, 0.5)
        for _ in range(steps):
            optimizer.step()
            schedule.step()
        return grower(model, optimizer, lr_scheduler=schedule, schedule="rounds:epochs=2"), optimizer, schedule

    growing, optimizer, schedule = begun(0)
    train(growing.model, optimizer)
    schedule.step()
    growing.step(0.5)
    growing.save(tmp_path, epochs=1)
    again, optimizer, schedule = begun(3)
    again.resume(tmp_path)
    assert optimizer.param_groups[0]["lr"] == 0.05
    assert again.step(0.6).grew and {group["lr"] for group in optimizer.param_groups} == {0.1}


def test_a_part_in_a_mode_of_its_own_is_refused_and_one_that_keeps_it_is_not() -> None:
    class Kept(nn.Sequential):
        def train(self, mode: bool = True) -> Kept:
            super().train(mode)
            self[1].eval()
            return self

    model = net()
    model[1].eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(TraceError, match="1 is in evaluation mode, unlike the model around it"):
        grower(model, optimizer)
    assert model.training and not model[1].training
    frozen = Kept(*net()).train()
    optimizer = torch.optim.SGD(frozen.parameters(), lr=0.1)
    growing = grower(frozen, optimizer)
    before = frozen[1].running_mean.clone()  # type: ignore[operator,union-attr]
    train(growing.model, optimizer)
    assert torch.equal(frozen[1].running_mean, before)  # type: ignore[arg-type]


def test_a_broken_checkpoint_is_told_and_the_one_before_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    looped(tmp_path, stop=5)
    newest = max(tmp_path.glob("*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:-30])
    with caplog.at_level(logging.WARNING, "graftkit"):
        again, _, _ = looped(tmp_path)
    assert "is broken" in caplog.text
    assert same(everything(again.model), everything(looped(None)[0].model))


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    looped(tmp_path, stop=3)
    model = net()
    growing = grower(model, torch.optim.AdamW(model.parameters()))
    before = everything(growing.model)
    with pytest.raises(RunError, match="another model or plan"):
        growing.resume(tmp_path)
    assert same(everything(growing.model), before) and not growing.history and growing.best == -math.inf
    assert growing.step(0.5).improved
    torch.manual_seed(5)
    model = nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.2), nn.ReLU(), nn.Linear(6, 2))
    with pytest.raises(TrainingError, match="not those of the checkpoint"):
        grower(model, torch.optim.AdamW(model.parameters())).resume(tmp_path)
    model = net()
    assert grower(model, torch.optim.AdamW(model.parameters())).resume(tmp_path / "nowhere") == 0


def test_what_has_ended_stays_ended(tmp_path: Path) -> None:
    model = net()
    growing = grower(model, torch.optim.SGD(model.parameters(), lr=0.1), score=0.9)
    for score in (0.5, 0.6):
        growing.step(score)
    growing.save(tmp_path, epochs=2)
    model = net()
    again = grower(model, torch.optim.SGD(model.parameters(), lr=0.1), score=0.9)
    assert again.resume(tmp_path) == 2 and again.finished and again.stopped == growing.stopped


# ── precision, compilation, accumulation ─────────────────────────────────────────────────────────


def trained(how: str) -> tuple[gk.Grower, list[float]]:
    """Two growths in a loop of one kind; every dendrite has to have learned."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    growing = grower(model, optimizer)
    called = torch.compile(growing.model) if how == "compile" else growing.model
    scaler = torch.amp.GradScaler("cpu", enabled=how == "fp16")
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(how)
    losses = []
    for score in (0.5, 0.6, 0.7):
        for _ in range(3):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
                loss = cross_entropy(called(ROWS).float(), WORDS)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            losses.append(float(loss.detach()))
        if score == 0.7:
            assert all(p.any() for d in growing.model.grafted.members() for p in d.strengths())
        growing.step(score)
    return growing, losses


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # torch's own
def test_compiled_and_in_half_precision_it_learns_the_same() -> None:
    plain = trained("plain")[1]
    assert trained("compile")[1] == pytest.approx(plain, rel=1e-4)
    for how in ("bf16", "fp16"):
        coarse = trained(how)[1]
        assert coarse != plain and coarse == pytest.approx(plain, rel=0.05)


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = checkpoint(lambda y: torch.relu(self.first(y)), x, use_reentrant=False)
        return self.last(hidden)


def test_a_module_that_recomputes_activations_grows() -> None:
    torch.manual_seed(0)
    model = Checkpointed()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    growing = gk.Grower(model, ROWS[:2], optimizer, schedule=Rounds(epochs=1), dendrites="full", sites="*")
    train(growing.model, optimizer)
    assert growing.step(0.5).grew and {graft.site for graft in growing.plan.grafts} == {"first", "last"}
    train(growing.model, optimizer)
    assert all(p.any() for d in growing.model.grafted.members() for p in d.strengths())


def test_a_copy_is_independent() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    growing = grower(model, optimizer)
    growing.step(0.5)
    average = torch.optim.swa_utils.AveragedModel(growing.model)
    before = growing.model.eval()(ROWS)
    train(growing.model, optimizer)
    torch.testing.assert_close(average.module.eval()(ROWS), before)
    assert not torch.equal(growing.model.eval()(ROWS), before)


# ── called as the module was ─────────────────────────────────────────────────────────────────────


class Answers(nn.Module):
    """Two inputs, one of them optional, a constant, and a dict with something that is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.head = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor, extra: dict[str, Tensor] | None = None, scale: float = 1.0, **rest: Any) -> Any:
        hidden = self.left(x) if extra is None else self.left(x) + self.right(extra["more"])
        hidden = torch.relu(hidden) * scale
        return {"logits": self.head(hidden), "hidden": (hidden, None), "name": "answer"}


def answering(example: Any, **asked: Any) -> tuple[Answers, gk.Grower]:
    torch.manual_seed(0)
    model = Answers()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return model, gk.Grower(model, example, optimizer, sites="*", **asked)


def test_it_takes_keywords_and_gives_the_same_structure() -> None:
    model, growing = answering({"x": ROWS[:2], "extra": {"more": ROWS[2:4]}, "scale": 0.5})
    for call in (
        lambda m: m(ROWS, {"more": ROWS}, 0.5),
        lambda m: m(ROWS, scale=0.5, extra={"more": ROWS}),
        lambda m: m(extra={"more": ROWS}, x=ROWS, scale=0.5),
    ):
        for mode in (True, False):
            given, expected = call(growing.model.train(mode)), call(model.train(mode))
            assert given.keys() == expected.keys() and given["name"] == "answer" and given["hidden"][1] is None
            torch.testing.assert_close(given["logits"], expected["logits"])
            torch.testing.assert_close(given["hidden"][0], expected["hidden"][0])
    assert "name" in call(growing.model) and call(growing.model)["hidden"][0] is not None


def test_a_tensor_in_another_place_is_refused() -> None:
    class Skips(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor, mask: Tensor | None = None, y: Tensor | None = None) -> Tensor:
            x = x if mask is None else x * mask
            return self.last(torch.relu(self.first(x if y is None else x - y)))

    model = Skips()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    growing = gk.Grower(model, {"x": ROWS[:2], "y": ROWS[2:4]}, optimizer, sites="*")
    torch.testing.assert_close(growing.model(ROWS, y=ROWS / 2), model(ROWS, y=ROWS / 2))
    with pytest.raises(TraceError, match="now called with"):
        growing.model(ROWS, ROWS / 2)


def test_a_default_may_be_said_or_not() -> None:
    model, growing = answering((ROWS[:2],))
    for given in (growing.model(ROWS), growing.model(x=ROWS), growing.model(ROWS, None, scale=1.0)):
        torch.testing.assert_close(given["logits"], model(ROWS)["logits"])


def test_other_arguments_than_the_examples_are_refused() -> None:
    _, growing = answering({"x": ROWS[:2], "scale": 0.5})
    with pytest.raises(TraceError, match=r"traced with 0\.5 and is now given 0\.7"):
        growing.model(ROWS, scale=0.7)
    with pytest.raises(TraceError, match=r"traced with the arguments x \(a tensor\), scale \(0\.5\).*x \(a tensor\)"):
        growing.model(ROWS)
    with pytest.raises(TraceError, match=r"now called with x \(a tensor\), extra \(\{'more'"):
        growing.model(ROWS, {"more": ROWS}, 0.5)
    with pytest.raises(TraceError, match="missing a required argument: 'x'"):
        growing.model(scale=0.5)
    with pytest.raises(TraceError, match=r"a tensor and is now given 3"):
        growing.model(3, scale=0.5)


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_a_wrapper_is_refused() -> None:
    optimizer = torch.optim.SGD(net().parameters(), lr=0.1)
    for wrapped in (nn.DataParallel(net()), torch.compile(net())):
        with pytest.raises(TraceError, match=r"give the Grower the module inside, and wrap grower\.model"):
            grower(wrapped, optimizer)


def test_what_cannot_be_is_refused_and_leaves_everything_as_it_was() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before, groups = everything(model), copy.deepcopy(optimizer.state_dict())
    with pytest.raises(PlanError, match="matches none of the 2 sites"):
        grower(model, optimizer, sites="nowhere")
    with pytest.raises(PlanError, match="growth schedule"):
        grower(model, optimizer, schedule="sometimes")
    with pytest.raises(TrainingError, match="choose max"):
        grower(model, optimizer, mode="best")
    with pytest.raises(TrainingError, match="scores nan"):
        grower(model, optimizer, score=math.nan)
    assert same(everything(model), before) and optimizer.state_dict() == groups


def test_growing_takes_no_package_that_it_has_no_need_of() -> None:
    code = "import sys, graftkit.growing; print([m for m in sys.argv[1:] if m in sys.modules])"
    heavy = ("lightning_fabric", "matplotlib", "sklearn", "scipy", "transformers", "onnxruntime")
    done = subprocess.run([sys.executable, "-c", code, *heavy], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"
