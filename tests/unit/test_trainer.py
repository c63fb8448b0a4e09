"""Growth and its trainer: the recipe, what it keeps, when it ends, and what the correlation rule finds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations
from trainer_tools import dataset, epoch, same

from graftkit import api, surgery, tracing, training
from graftkit.contracts import Data, Observer
from graftkit.core.errors import TrainingError
from graftkit.core.records import EpochRecord, PhaseRecord
from graftkit.dendrites import build_dendrite
from graftkit.fitting import PRECISIONS
from graftkit.learning import Rule
from graftkit.model import GraftedModel
from graftkit.plan import Graft, GraftPlan
from graftkit.rules import Correlation, Gradient
from graftkit.schedules import Cycles, Replay
from graftkit.training import Recipe, Trainer


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.norm = nn.BatchNorm1d(6)
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(torch.relu(self.norm(self.first(x)))))


def fresh(seed: int = 0) -> GraftedModel:
    torch.manual_seed(seed)
    return surgery.empty(tracing.trace_module(Net(), (torch.randn(2, 4),), name="net"))


@pytest.fixture(scope="module")
def shared() -> tuple[GraftedModel, dict[str, Tensor]]:
    """One traced net, and its state; `model` puts it back."""
    model = fresh()
    return model, model.snapshot()


@pytest.fixture
def model(shared: tuple[GraftedModel, dict[str, Tensor]]) -> Iterator[GraftedModel]:
    given, state = shared
    surgery.put_back(given, GraftPlan(), state, build_dendrite)
    given.requires_grad_(True)
    given.zero_grad(set_to_none=True)
    yield given
    given.requires_grad_(True)
    surgery.put_back(given, GraftPlan(), state, build_dendrite)


DATA = Data(dataset(), dataset(seed=2), dataset(seed=3), "classes", 2, "made up")
PLAN = (Graft("first", "full"),)


def grower(model: GraftedModel, additions: Sequence[Graft] = PLAN, **asked: object) -> Trainer:
    options = {
        "rule": Gradient(),
        "schedule": Cycles(epochs=2, cycles=3),
        "build": build_dendrite,
        "criterion": functional.cross_entropy,
        "baseline": 0.5,
        "steps_per_epoch": 2,
        "recipe": Recipe(learning_rate=0.05, settled=1.0),
    }
    return Trainer(model, additions, **{**options, **asked})  # type: ignore[arg-type]


def test_only_the_last_epochs_of_a_phase_leave_a_state_and_of_equal_ones_the_latest(model: GraftedModel) -> None:
    growing = grower(model, schedule=Cycles(epochs=8, cycles=1), recipe=Recipe(learning_rate=0.05))
    states = []
    for score in (0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.6, 0.6):
        epoch(growing, score)
        states.append(model.snapshot())
    assert growing.best.validation == 0.6 and growing.history[0].validation == 0.6 and growing.history[0].improved
    growing.restore_best()
    assert same(model.snapshot(), states[7]) and not same(model.snapshot(), states[6])
    assert training.may_keep(1, 1, 0.25)
    assert [epoch for epoch in range(1, 11) if training.may_keep(epoch, 10, 0.25)] == [8, 9, 10]


@pytest.mark.parametrize("how", ["interrupted", "diverged"])
def test_where_a_phase_ends_before_its_time_its_best_state_has_to_do(model: GraftedModel, how: str) -> None:
    growing = grower(model, schedule=Cycles(epochs=8, cycles=1), recipe=Recipe(learning_rate=0.05))
    epoch(growing, 0.7)
    best = model.snapshot()
    epoch(growing, 0.6)
    if how == "interrupted":
        growing.interrupt("by the user")
    else:
        epoch(growing, math.nan)
        epoch(growing, math.nan)
    growing.restore_best()
    assert growing.best.validation == 0.7 and same(model.snapshot(), best)


# ── the recipe ───────────────────────────────────────────────────────────────────────────────────


@given(steps=st.integers(1, 500), warmup=st.floats(0, 0.5))
def test_the_rate_rises_once_and_falls_to_zero(steps: int, warmup: float) -> None:
    rates = [Recipe(warmup=warmup).rate(step, steps) for step in range(steps + 1)]
    rise = max(1, round(steps * warmup))
    assert all(0 <= rate <= 1 for rate in rates) and rates[min(rise, steps) - 1] == 1 and rates[0] > 0
    assert all(a < b for a, b in pairwise(rates[:rise]))
    assert all(a >= b - 1e-12 for a, b in pairwise(rates[rise:]))
    if steps > rise:
        assert math.isclose(rates[-1], 0, abs_tol=1e-12)


def test_the_rate_by_hand() -> None:
    recipe = Recipe(warmup=0.2)
    found = [recipe.rate(step, 10) for step in range(10)]
    expected = [0.5, 1.0, *(0.5 * (1 + math.cos(math.pi * k / 8)) for k in range(8))]
    assert found == pytest.approx(expected)


def test_every_phase_begins_with_a_new_optimizer_and_the_same_course(model: GraftedModel) -> None:
    growing = grower(model, recipe=Recipe(learning_rate=0.01, weight_decay=0.3))
    seen = []
    for cycle in range(2):
        optimizer = growing.optimizer
        assert isinstance(optimizer, torch.optim.AdamW) and not optimizer.state
        assert optimizer.param_groups[0]["weight_decay"] == 0.3
        seen.append(growing.lr_scheduler.get_last_lr()[0])
        for step in range(2):
            epoch(growing, 0.6 + cycle / 10 + step / 100)
        assert growing.optimizer is not optimizer
    assert seen == [0.01, 0.01]


# ── the best state, and the way back to it ───────────────────────────────────────────────────────


def test_the_best_state_comes_back_bit_for_bit(model: GraftedModel) -> None:
    growing = grower(model, schedule=Cycles(epochs=4, cycles=1))
    best = None
    for score in (0.55, 0.7, 0.6, 0.65):
        step = epoch(growing, score)
        assert step.improved == (score in (0.55, 0.7))
        if score == 0.7:
            best = model.snapshot()
    assert step.finished and step.phase_ended and growing.finished and best is not None
    assert not same(model.snapshot(), best)
    growing.restore_best()
    assert same(model.snapshot(), best) and model.plan.grafts == PLAN
    assert growing.best.validation == 0.7 and growing.best.cycle == 1
    assert growing.stopped == "the one cycle was done"
    with pytest.raises(TrainingError, match="growth has ended"):
        growing.step(0.9)


def test_a_cycle_that_does_not_improve_ends_growth_and_rolls_back(model: GraftedModel) -> None:
    growing = grower(model)
    epoch(growing, 0.6)
    best = model.snapshot()
    epoch(growing, 0.59)
    assert len(model.plan.grafts) == 2  # the second cycle starts from the best, with one more dendrite
    for score in (0.6, 0.58):  # as good is not better
        epoch(growing, score)
    assert growing.finished and growing.stopped == "cycle 2 did not improve validation"
    assert [phase.improved for phase in growing.history] == [True, False]
    assert [phase.dendrites for phase in growing.history] == [1, 2]
    growing.restore_best()
    assert same(model.snapshot(), best) and len(model.plan.grafts) == 1


def test_a_new_cycle_starts_from_the_best_state(model: GraftedModel) -> None:
    growing = grower(model)
    epoch(growing, 0.6)
    best = model.snapshot()
    epoch(growing, 0.5)
    now = model.snapshot()
    assert all(torch.equal(tensor, now[name]) for name, tensor in best.items())


def test_shrinking_begins_each_phase_with_smaller_weights_and_leaves_the_rest(model: GraftedModel) -> None:
    model.base.head.weight.requires_grad_(False)  # type: ignore[union-attr]
    growing = grower(model, recipe=Recipe(learning_rate=0.05, settled=1.0, shrink=0.3))
    for name, tensor in growing.best.state.items():
        expected = tensor * 0.3 if name == "base.first.weight" else tensor
        torch.testing.assert_close(model.snapshot()[name], expected, msg=name)
    epoch(growing, 0.6)
    best = model.snapshot()
    epoch(growing, 0.55)  # the second cycle shrinks the best state, and the dendrites that it has stay
    now = model.snapshot()
    torch.testing.assert_close(now["base.first.weight"], best["base.first.weight"] * 0.3)
    assert {name for name in best if not torch.equal(now[name], best[name])} == {"base.first.weight"}
    assert len(model.plan.grafts) == 2


def test_where_nothing_fits_nothing_is_shrunk(model: GraftedModel) -> None:
    before = model.snapshot()
    growing = grower(model, max_parameters=model.parameter_count(), recipe=Recipe(shrink=0.3))
    assert growing.finished and same(model.snapshot(), before)


def test_a_weight_that_is_computed_is_not_shrunk_and_a_shared_one_once() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
            self.second.weight = self.first.weight
            self.third = parametrizations.orthogonal(nn.Linear(4, 2))

        def forward(self, x: Tensor) -> Tensor:
            return self.third(torch.relu(self.second(torch.relu(self.first(x)))))

    model = surgery.empty(tracing.trace_module(Shared(), (torch.randn(2, 4),), name="shared"))
    before = model.snapshot()
    grower(model, (), schedule=Replay((1,)), recipe=Recipe(shrink=0.5))
    changed = {name: tensor for name, tensor in model.snapshot().items() if not torch.equal(tensor, before[name])}
    assert changed and all(torch.equal(tensor, before[name] * 0.5) for name, tensor in changed.items())
    assert not any("third" in name for name in changed)


def test_shrinking_is_the_same_for_the_control_and_never_ships_by_itself(model: GraftedModel) -> None:
    before = model.snapshot()
    growing = grower(model, (), schedule=Replay((2,)), baseline=0.9, recipe=Recipe(learning_rate=0.05, shrink=0.5))
    now = model.snapshot()
    assert torch.equal(now["base.head.weight"], before["base.head.weight"] * 0.5)
    assert torch.equal(now["base.head.bias"], before["base.head.bias"])
    for score in (0.8, 0.85):
        epoch(growing, score)
    growing.restore_best()
    assert same(model.snapshot(), before)


@pytest.mark.parametrize(
    ("share", "rule", "words"),
    [
        (0.5, Gradient(freeze=True), "its weights stand still"),
        (0.5, Correlation(), "teaches dendrites the errors"),
        (0.0, Gradient(), "a share above 0"),
        (1.5, Gradient(), "a share above 0"),
    ],
)
def test_shrinking_goes_with_a_network_that_learns(model: GraftedModel, share: float, rule: Rule, words: str) -> None:
    before = model.snapshot()
    with pytest.raises(TrainingError, match=words):
        grower(model, rule=rule, held_out=[], recipe=Recipe(shrink=share))
    assert same(model.snapshot(), before)


def test_shrinking_needs_weights_that_learn(model: GraftedModel) -> None:
    model.base.requires_grad_(False)
    with pytest.raises(TrainingError, match="its weights stand still"):
        grower(model, recipe=Recipe(shrink=0.5))


def test_nothing_better_gives_the_model_as_it_was(model: GraftedModel) -> None:
    before = model.snapshot()
    growing = grower(model, baseline=0.9)
    for score in (0.8, 0.85):
        epoch(growing, score)
    assert growing.finished and growing.best.cycle == 0
    assert growing.best_trained is not None and growing.best_trained.validation == 0.85
    growing.restore_best()
    assert same(model.snapshot(), before) and model.plan == GraftPlan() and not model.dendrites


@pytest.mark.parametrize("what", ["loss", "score"])
def test_a_nan_goes_on_from_the_last_good_state_once_and_more_slowly(model: GraftedModel, what: str) -> None:
    warned: list[str] = []
    growing = grower(model, schedule=Cycles(epochs=3, cycles=2), observer=Observer(on_warning=warned.append))
    epoch(growing, 0.7)
    best = model.snapshot()
    for time in range(2):
        if what == "loss":
            inputs, targets = dataset().tensors
            poisoned = inputs.clone()
            poisoned[3, 1] = math.inf
            assert not math.isfinite(growing.learn(poisoned, targets))
            assert math.isnan(growing.learn(inputs, targets))
        else:
            epoch_of_two_steps(growing)
        step = growing.step(0.9 if what == "loss" else math.nan)
        if time == 0:
            assert not (step.finished or step.phase_ended or step.improved or growing.diverged)
            assert same(model.snapshot(), best) and not growing.optimizer.state
            assert growing.lr_scheduler.get_last_lr() == [pytest.approx(0.005)]
            assert "went on from the last good state at 0.1 times" in warned[0]
    assert step.finished and step.phase_ended and not step.improved
    assert growing.diverged and "became NaN or infinite in cycle 1 again" in growing.stopped
    (phase,) = growing.history
    assert phase.ends_growth and phase.note == growing.stopped and phase.epochs == 2
    growing.restore_best()
    assert same(model.snapshot(), best)


def test_a_nan_before_any_good_state_begins_the_phase_again(model: GraftedModel) -> None:
    growing = grower(model, schedule=Cycles(epochs=2, cycles=2), recipe=Recipe(learning_rate=0.05, shrink=0.5))
    begun = model.snapshot()
    epoch_of_two_steps(growing)
    assert not growing.step(math.nan).phase_ended
    assert same(model.snapshot(), begun) and model.plan.grafts == PLAN
    for score in (0.6, 0.7):
        assert not growing.step(score).finished
    (phase,) = growing.history  # as many epochs as without the mishap, for the control has so many
    assert phase.epochs == 2 and phase.improved and "went on from the last good state" in phase.note
    assert growing.pace == 0.1 and "went on" not in epoch_note(growing)


def epoch_note(growing: Trainer) -> str:
    """What the record of the next phase says."""
    for score in (0.8, 0.9):
        epoch(growing, score)
    return growing.history[1].note


def epoch_of_two_steps(growing: Trainer) -> None:
    inputs, targets = dataset().tensors
    for part in (slice(0, 32), slice(32, 64)):
        growing.learn(inputs[part], targets[part])


def test_a_mended_run_says_so_in_its_troubles(model: GraftedModel) -> None:
    calls = 0

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        nonlocal calls
        calls += outputs.requires_grad
        return functional.cross_entropy(outputs, targets) * (math.nan if calls == 3 else 1.0)

    result = api.fit(model, DATA, plan=GraftPlan(PLAN), loss=loss, metric="accuracy", epochs=3, cycles=1)
    assert not result.diverged and any("seed 0: the loss became NaN" in line for line in result.troubles)
    assert [record.epochs for record in result.phases] == [3, 3]


def test_a_baseline_that_is_no_number_is_refused(model: GraftedModel) -> None:
    with pytest.raises(TrainingError, match="scores nan on the validation rows"):
        grower(model, baseline=math.nan)


def test_growth_keeps_within_the_limit(model: GraftedModel) -> None:
    one = 4 * 6 + 6 + 6
    growing = grower(model, max_parameters=model.parameter_count() + one + 3, schedule=Cycles(epochs=1, cycles=5))
    epoch(growing, 0.6)
    assert growing.finished and "no further dendrite fits into" in growing.stopped
    growing.restore_best()
    assert len(model.plan.grafts) == 1


def test_a_limit_below_everything_grafts_nothing(model: GraftedModel) -> None:
    growing = grower(model, max_parameters=model.parameter_count())
    assert growing.finished and growing.history == [] and model.plan == GraftPlan()


def test_interrupt_keeps_the_best(model: GraftedModel) -> None:
    best: list[dict[str, Tensor]] = []

    def stop(record: EpochRecord, of: int) -> None:
        if record.epoch == 2:
            raise KeyboardInterrupt

    loader = training.batches(DATA.train, 32, seed=0)
    growing = grower(model, baseline=-1.0, schedule=Cycles(epochs=5, cycles=1), observer=Observer(on_epoch=stop))

    def metric(outputs: Tensor, targets: Tensor) -> float:
        best.append(model.snapshot())
        return 0.6 - len(best) / 10

    training.run(growing, loader, DATA.validation, metric)
    assert growing.interrupted and growing.finished and growing.stopped == "interrupted by the user"
    assert len(best) == 2 and same(model.snapshot(), best[0])


def test_all_frozen_trains_the_dendrites_alone(model: GraftedModel) -> None:
    model.requires_grad_(False)
    before = {name: p.clone() for name, p in model.base.named_parameters()}
    growing = grower(model, schedule=Cycles(epochs=2, cycles=1))
    epoch(growing, 0.6)
    assert all(torch.equal(p, before[name]) for name, p in model.base.named_parameters())
    assert model.at("first").members()[0].served().any()


def test_nothing_to_train_is_refused(model: GraftedModel) -> None:
    model.requires_grad_(False)
    with pytest.raises(TrainingError, match="no parameter of the model may be trained"):
        grower(model, (), schedule=Replay((1,)))


def test_nothing_to_graft_ends_growth(model: GraftedModel) -> None:
    growing = grower(model, ())
    assert growing.finished and growing.stopped == "no further dendrite was asked for"


def test_records(model: GraftedModel) -> None:
    epochs: list[EpochRecord] = []
    phases: list[PhaseRecord] = []
    watching = Observer(on_epoch=lambda record, of: epochs.append(record), on_phase=phases.append)
    growing = grower(model, observer=watching, arm="grafted", seed=7)
    inputs, targets = dataset().tensors
    first, second = growing.learn(inputs[:48], targets[:48]), growing.learn(inputs[48:], targets[48:])
    growing.step(0.7)
    assert epochs[0].loss == pytest.approx((48 * first + 16 * second) / 64)
    epoch(growing, 0.6)
    epoch(growing, 0.8)
    assert [(e.arm, e.seed, e.cycle, e.phase, e.epoch) for e in epochs] == [
        ("grafted", 7, cycle, "neuron", number) for cycle, number in ((1, 1), (1, 2), (2, 3))
    ]
    assert [e.validation for e in epochs] == [0.7, 0.6, 0.8]
    (phase,) = phases
    assert (phase.validation, phase.epochs, phase.dendrites, phase.improved) == (0.7, 2, 1, True)
    assert phase.parameters == sum(p.numel() for p in model.base.parameters()) + 4 * 6 + 6 + 6


# ── the same in everybody's hands, and twice the same ────────────────────────────────────────────


def fitted(model: GraftedModel, **asked: object) -> GraftedModel:
    surgery.put_back(model, GraftPlan(), START, build_dendrite)
    options: dict[str, object] = {"epochs": 3, "cycles": 2, "batch_size": 16, "learning_rate": 0.03}
    whole = {**options, "control": False, "margin": 0.0, **asked}
    return api.fit(model, DATA, plan=GraftPlan(PLAN), **whole).model  # type: ignore[arg-type]


START: dict[str, Tensor] = {}


@pytest.fixture(autouse=True)
def start(shared: tuple[GraftedModel, dict[str, Tensor]]) -> None:
    START.update(shared[1])


def test_a_loop_of_ones_own_equals_fit(model: GraftedModel) -> None:
    ours = fitted(model, seed=4).snapshot()
    plan = model.plan
    surgery.put_back(model, GraftPlan(), START, build_dendrite)
    device = torch.device("cpu")
    metric = training.find_metric("accuracy")
    loader = training.batches(DATA.train, 16, seed=4)
    baseline = training.evaluate(model, DATA.validation, metric, device)
    with training.seeded(4):
        growing = grower(
            model,
            schedule=Cycles(epochs=3, cycles=2),
            baseline=baseline,
            steps_per_epoch=len(loader),
            recipe=Recipe(learning_rate=0.03),
            seed=4,
        )
        while not growing.finished:
            for inputs, targets in loader:
                growing.learn(inputs, targets)
            growing.step(training.evaluate(model, DATA.validation, metric, device))
        growing.restore_best()
    assert model.plan == plan and same(model.snapshot(), ours)


@pytest.mark.parametrize("rule", ["gradient", "correlation"])
def test_one_seed_gives_one_result(model: GraftedModel, rule: str) -> None:
    asked = {"rule": rule} if rule == "gradient" else {"rule": Correlation(pool=2), "epochs": 2, "cycles": 1}
    first = fitted(model, seed=1, **asked).snapshot()
    torch.manual_seed(99)
    again = fitted(model, seed=1, **asked).snapshot()
    assert same(first, again)


def test_seeded_leaves_randomness_outside_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with training.seeded(3):
        first = torch.rand(2)
    with training.seeded(3):
        assert torch.equal(torch.rand(2), first)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_precisions_run_and_are_evaluated_in_full(model: GraftedModel, precision: str) -> None:
    result = api.fit(model, DATA, plan=GraftPlan(PLAN), epochs=2, cycles=1, precision=precision, learning_rate=0.03)
    assert all(p.dtype == torch.float32 for p in result.model.parameters())
    assert result.model.eval()(dataset().tensors[0]).dtype == torch.float32
    assert all(math.isfinite(record.loss) for record in result.epochs) and len(result.epochs) == 4


def test_bf16_really_is_coarser(model: GraftedModel) -> None:
    inputs, targets = dataset().tensors
    losses = []
    for precision in PRECISIONS:
        surgery.put_back(model, GraftPlan(), START, build_dendrite)
        fabric = Fabric(accelerator="cpu", devices=1, precision=precision)  # type: ignore[arg-type]
        growing = grower(model, fabric=fabric)
        with training.seeded(0):
            losses.append(growing.learn(inputs, targets))
    assert losses[0] != losses[1] and losses[0] == pytest.approx(losses[1], rel=0.05)


def test_an_unknown_precision_is_refused(model: GraftedModel) -> None:
    with pytest.raises(TrainingError, match="precision '16-mixed' is not offered; choose 32-true or bf16-mixed"):
        api.fit(model, DATA, precision="16-mixed")


def test_a_frozen_network_learns_from_single_rows_and_keeps_its_statistics(model: GraftedModel) -> None:
    growing = grower(model, rule=Gradient(freeze=True), schedule=Cycles(epochs=1, cycles=1))
    base = {name: tensor.clone() for name, tensor in model.base.state_dict().items()}
    before = [p.detach().clone() for p in model.dendrites.parameters()]
    inputs, targets = dataset().tensors
    assert math.isfinite(growing.learn(inputs[:1], targets[:1])) and not model.training
    assert all(torch.equal(tensor, base[name]) for name, tensor in model.base.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.base.parameters())
    assert any(not torch.equal(p, old) for p, old in zip(model.dendrites.parameters(), before, strict=True))
