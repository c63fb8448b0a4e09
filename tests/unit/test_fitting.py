"""One fit: what ships, what the control did, and what test rows must never decide."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from graftkit import api, fitting, surgery, tracing
from graftkit.contracts import Data, Observer
from graftkit.core.errors import DataError, PlanError, TrainingError
from graftkit.core.records import EpochRecord, StepRecord
from graftkit.dendrites import build_dendrite
from graftkit.fitting import FitResult
from graftkit.model import GraftedModel
from graftkit.plan import Graft, GraftPlan


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.norm(self.first(x))))


def part(seed: int, rows: int = 96) -> TensorDataset:
    inputs = torch.randn(rows, 4, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(inputs, (inputs[:, 0] * inputs[:, 1] > 0).long())


DATA = Data(part(1), part(2), part(3), "classes", 2, "made up")
PLAN = GraftPlan((Graft("first", "full"),))


@pytest.fixture(scope="module")
def shared() -> tuple[GraftedModel, dict[str, Tensor]]:
    torch.manual_seed(0)
    model = surgery.empty(tracing.trace_module(Net(), (torch.randn(2, 4),), name="net"))
    return model, model.snapshot()


@pytest.fixture
def model(shared: tuple[GraftedModel, dict[str, Tensor]]) -> Iterator[GraftedModel]:
    given, state = shared
    surgery.put_back(given, GraftPlan(), state, build_dendrite)
    yield given
    given.requires_grad_(True)


def fit(model: GraftedModel, rows: Data = DATA, **asked: object) -> FitResult:
    options: dict[str, object] = {"plan": PLAN, "epochs": 4, "cycles": 2, "batch_size": 32, "learning_rate": 0.03}
    return api.fit(model, rows, **{**options, **asked})  # type: ignore[arg-type]


def test_growth_ships_when_it_helps(model: GraftedModel) -> None:
    result = fit(model, epochs=15, batch_size=16)
    assert result.shipped == "grafted" and result.grafted == result.best_grafted
    assert result.grafted.validation > result.baseline.validation
    score = api.metric_for(None, DATA)
    for rows, number in ((DATA.validation, result.grafted.validation), (DATA.test, result.grafted.test)):
        inputs, targets = rows.tensors  # type: ignore[union-attr]
        assert score(result.model.eval()(inputs), targets) == number
    assert result.grafted.parameters == result.model.parameter_count() > result.baseline.parameters
    assert result.grafted.macs == result.model.macs() > result.baseline.macs
    assert result.model.plan.grafts[0] == PLAN.grafts[0] and result.model is model


def test_shipping_what_was_given_is_bit_equal(model: GraftedModel) -> None:
    before = model.snapshot()
    result = fit(model, metric=lambda outputs, targets: 0.5)
    assert result.shipped == "given" and result.model.plan == GraftPlan() and not result.model.dendrites
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert result.grafted == result.baseline and result.gains == {}
    assert result.best_grafted is not None and result.best_grafted.parameters > result.baseline.parameters
    assert result.stopped == "cycle 1 did not improve validation"


def test_the_control_has_the_same_number_of_epochs(model: GraftedModel) -> None:
    for rule in ("gradient", "correlation"):
        result = fit(model, rule=rule, plan=GraftPlan((replace(PLAN.grafts[0], detach=rule == "correlation"),)))
        arms = {arm: [e for e in result.epochs if e.arm == arm] for arm in ("grafted", "control")}
        assert len(arms["grafted"]) == len(arms["control"]) > 0
        assert [e.epoch for e in arms["control"]] == list(range(1, len(arms["control"]) + 1))
        assert {e.phase for e in arms["control"]} == {"neuron"}
        assert all(phase.dendrites == 0 for phase in result.phases if phase.arm == "control")
        assert result.control is not None and result.control.parameters == result.baseline.parameters
        surgery.put_back(model, GraftPlan(), result_start(model), build_dendrite)


def result_start(model: GraftedModel) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {f"base.{name}": tensor for name, tensor in Net().state_dict().items()}


def test_the_controls_learning_rate_takes_the_same_course(model: GraftedModel) -> None:
    result = fit(model)
    rates = {arm: [e.learning_rate for e in result.epochs if e.arm == arm] for arm in ("grafted", "control")}
    assert rates["grafted"] == rates["control"]


@pytest.mark.parametrize(("rate", "loser"), [(1e-6, "control, shrunk"), (0.03, None)])
def test_where_weights_are_shrunk_the_better_of_two_controls_counts(
    model: GraftedModel, rate: float, loser: str | None
) -> None:
    given = fit(model, epochs=15, batch_size=16).model
    result = fit(given, shrink=0.01, epochs=3, cycles=1, learning_rate=rate)
    arms = {epoch.arm for epoch in result.epochs}
    best = {arm: max(p.validation or 0 for p in result.phases if p.arm == arm) for arm in arms}
    other = next(iter(arms - {"grafted", "control"}))
    assert result.control is not None and result.control.validation == best["control"] >= best[other]
    assert [sum(epoch.arm == arm for epoch in result.epochs) for arm in arms] == [3, 3, 3]
    assert loser in (None, other)  # at no learning rate weights do not come back


def test_a_trial_does_not_shrink(model: GraftedModel) -> None:
    found = [fit(model, shrink=share, budget="parameters=+90%", margin=0) for share in (1.0, 0.01)]
    tried = [[epoch for epoch in result.epochs if epoch.arm == "trial"] for result in found]
    assert tried[0] == tried[1] != []
    assert found[0].control != found[1].control or found[0].best_grafted != found[1].best_grafted


def test_no_control_when_it_is_not_wanted_or_could_not_learn(model: GraftedModel) -> None:
    assert fit(model, control=False, epochs=1).control is None
    surgery.put_back(model, GraftPlan(), result_start(model), build_dendrite)
    model.requires_grad_(False)
    warnings: list[str] = []
    result = fit(model, epochs=1, observer=Observer(on_warning=warnings.append))
    assert result.control is None and any("frozen" in line for line in warnings)


def test_test_rows_never_change_a_decision(model: GraftedModel) -> None:
    outcomes = []
    for test in (DATA.test, part(77, 40), None):
        surgery.put_back(model, GraftPlan(), result_start(model), build_dendrite)
        result = fit(model, replace(DATA, test=test), rule="gradient")
        outcomes.append((result, model.snapshot()))
    first, state = outcomes[0]
    for other, weights in outcomes[1:]:
        assert all(torch.equal(tensor, weights[name]) for name, tensor in state.items()) and set(state) == set(weights)
        assert other.epochs == first.epochs and other.phases == first.phases and other.gains == first.gains
        assert replace(other.grafted, test=None) == replace(first.grafted, test=None)
        assert (other.shipped, other.stopped) == (first.shipped, first.stopped)
    assert outcomes[2][0].grafted.test is None and first.grafted.test != outcomes[1][0].grafted.test


def test_gains_are_what_silence_costs(model: GraftedModel) -> None:
    plan = GraftPlan((Graft("first", "full"), Graft("head", "full")))
    result = fit(model, plan=plan, epochs=15, batch_size=16, cycles=1)
    assert set(result.gains) == {"first", "head"}
    score, (inputs, targets) = api.metric_for(None, DATA), DATA.validation.tensors  # type: ignore[union-attr]
    whole = score(model.eval()(inputs), targets)
    for site, gain in result.gains.items():
        kept = model.silence(site)
        assert gain == pytest.approx(whole - score(model(inputs), targets))
        model.unsilence(site, kept)
    assert score(model(inputs), targets) == whole == result.grafted.validation


def test_seeds_are_repetitions_and_the_best_of_them_ships(model: GraftedModel) -> None:
    result = fit(model, seed=5, seeds=3, cycles=1)
    assert [record.seed for record in result.seeds] == [5, 6, 7]
    best = max(record.grafted.validation for record in result.seeds)
    assert result.best_grafted is not None and result.best_grafted.validation == best
    owner = next(record for record in result.seeds if record.grafted.validation == best)
    assert result.control == owner.control
    surgery.put_back(model, GraftPlan(), result_start(model), build_dendrite)
    alone = fit(model, seed=6, cycles=1)
    assert alone.seeds[0] == result.seeds[1]


def test_a_metric_that_is_nan_on_the_test_rows_is_only_shown(model: GraftedModel) -> None:
    def metric(outputs: Tensor, targets: Tensor) -> float:
        hit = float((outputs.argmax(1) == targets).double().mean())
        return hit if len(targets) == 96 else float("nan")

    result = fit(model, replace(DATA, test=part(3, 50)), metric=metric, epochs=1, cycles=1)
    assert result.grafted.test != result.grafted.test and result.control is not None


def test_a_grafted_model_counts_as_given(model: GraftedModel) -> None:
    surgery.graft(model, [Graft("head", "full")], build_dendrite, seed=1)
    with torch.no_grad():
        for p in model.dendrites.parameters():
            p.fill_(0.1)
    before, plan = model.snapshot(), model.plan
    result = fit(model, metric=lambda outputs, targets: 0.5)
    assert result.shipped == "given" and model.plan == plan
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert result.control is not None and result.control.parameters == result.baseline.parameters


def test_interrupted_keeps_the_best_and_runs_no_control(model: GraftedModel) -> None:
    def stop(record: EpochRecord, of: int) -> None:
        if record.epoch == 2:
            raise KeyboardInterrupt

    result = fit(model, observer=Observer(on_epoch=stop), seeds=3)
    assert result.interrupted and result.control is None and result.gains == {} and len(result.seeds) == 1
    assert {e.arm for e in result.epochs} == {"grafted"}


def test_a_model_that_scores_nan_is_refused(model: GraftedModel) -> None:
    with pytest.raises(TrainingError, match="scores nan on the validation rows"):
        fit(model, metric=lambda outputs, targets: float("nan"))


def test_divergence_gives_back_what_was_given(model: GraftedModel) -> None:
    before = model.snapshot()
    calls = []

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        calls.append(1)
        value = nn.functional.cross_entropy(outputs, targets)
        return value * float("inf") if len(calls) > 3 else value

    result = fit(model, loss=loss, control=False, metric=lambda o, t: 0.5)
    assert result.diverged and result.shipped == "given" and "became NaN or infinite" in result.stopped
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("setting", "value"),
    [("epochs", 0), ("cycles", 0), ("batch_size", 0), ("seeds", 0), ("margin", -1.0), ("margin", float("nan")),
     ("learning_rate", -1.0), ("learning_rate", float("nan"))],
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(model: GraftedModel, setting: str, value: float) -> None:
    with pytest.raises(TrainingError, match=f"^{setting} is {value}; it has to be "):
        fit(model, **{setting: value})


def test_a_join_that_there_is_not_is_refused(model: GraftedModel) -> None:
    with pytest.raises(PlanError, match="join must be 'activation' or 'call', not 'x'"):
        api.make_plan(model.traced, join="x")


def test_rows_that_do_not_fit_are_refused_before_training(model: GraftedModel) -> None:
    with pytest.raises(DataError, match="the labels name 5 classes"):
        fit(model, replace(DATA, classes=5))


# ── gains that are sure ──────────────────────────────────────────────────────────────────────────


def test_a_gain_within_its_error_does_not_ship(model: GraftedModel) -> None:
    before = model.snapshot()
    result = fit(model, epochs=15, batch_size=16, margin=100.0)
    assert result.shipped == "given" and result.model.plan == GraftPlan() and result.seeds[0].shipped == "given"
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert result.grafted == result.baseline and result.best_grafted is not None and result.margin is not None
    gain = result.best_grafted.validation - result.baseline.validation
    assert 0 < gain < 100 * result.margin and 0.01 < result.margin < 0.2


def test_any_gain_ships_where_that_is_wanted(model: GraftedModel) -> None:
    result = fit(model, epochs=15, batch_size=16, margin=0.0)
    assert result.shipped == "grafted" and result.margin is not None and result.margin > 0


# ── budgets ──────────────────────────────────────────────────────────────────────────────────────

CANDIDATES = GraftPlan((Graft("first", "full"), Graft("first", "lowrank", (("rank", 1),)), Graft("head", "full")))


def test_a_budget_is_spent_on_what_the_trial_valued(model: GraftedModel) -> None:
    stages: list[str] = []
    observer = Observer(on_stage=stages.append)
    result = fit(model, plan=CANDIDATES, budget="parameters=+25", epochs=16, batch_size=16, observer=observer)
    spending = result.spending
    assert spending is not None and spending.epochs == 4 and spending.allowance == 25
    assert stages == ["valuing dendrites", "pricing dendrites in parameters"]
    assert [(v.site, v.kind) for v in spending.values] == [(g.site, g.kind) for g in CANDIDATES.grafts]
    kept = {(v.site, v.kind): v.kept for v in spending.values if v.kept}
    assert kept and result.best_grafted is not None
    assert result.best_grafted.parameters - result.baseline.parameters == spending.spent <= 25
    counts = {v.site: len(v.worth) for v in spending.values}
    assert result.shipped == "grafted"
    for graft in result.model.plan.grafts:
        assert (graft.neurons or tuple(range(counts[graft.site]))) == kept[graft.site, graft.kind]
    trial = [phase for phase in result.phases if phase.arm == "trial"]
    assert [(phase.epochs, phase.dendrites) for phase in trial] == [(4, 3)]


def test_the_control_gets_the_trials_epochs_too(model: GraftedModel) -> None:
    result = fit(model, plan=CANDIDATES, budget="parameters=+25", epochs=8)
    spent = {arm: sum(e.arm == arm for e in result.epochs) for arm in ("trial", "grafted", "control")}
    assert spent == {"trial": 2, "grafted": 8, "control": 10}


def test_where_nothing_pays_the_model_is_given_back(model: GraftedModel) -> None:
    before = model.snapshot()
    result = fit(model, plan=CANDIDATES, budget="parameters=+1", epochs=8)
    assert result.shipped == "given" and result.best_grafted is None and "into the budget" in result.stopped
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert result.spending is not None and result.spending.spent == 0
    assert result.control is not None and {e.arm for e in result.epochs} == {"trial", "control"}


def test_each_seed_has_a_trial_of_its_own_and_the_best_of_them_is_told(model: GraftedModel) -> None:
    result = fit(model, plan=CANDIDATES, budget="parameters=+25", epochs=8, seeds=2, control=False)
    assert {e.seed for e in result.epochs if e.arm == "trial"} == {0, 1}
    assert result.spending is not None
    best = max(result.seeds, key=lambda record: record.grafted.validation)
    assert best.grafted.parameters - result.baseline.parameters == result.spending.spent


@pytest.mark.parametrize("at", [1, 3])
def test_interrupted_in_the_trial_or_after_it(model: GraftedModel, at: int) -> None:
    seen: list[EpochRecord] = []

    def stop(record: EpochRecord, of: int) -> None:
        seen.append(record)
        if len(seen) == at:
            raise KeyboardInterrupt

    before = model.snapshot()
    result = fit(model, plan=CANDIDATES, budget="parameters=+25", epochs=8, observer=Observer(on_epoch=stop))
    assert result.interrupted and result.control is None
    if at == 1:
        assert result.shipped == "given" and result.spending is None
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_what_was_grafted_before_is_not_valued(model: GraftedModel) -> None:
    surgery.graft(model, [Graft("first", "full")], build_dendrite, seed=1)
    plan = model.plan
    result = fit(model, plan=CANDIDATES, budget="parameters=+30", epochs=8)
    assert result.spending is not None and len(result.spending.values) == 3
    assert model.plan.grafts[:1] == plan.grafts
    assert result.best_grafted is None or result.best_grafted.parameters <= result.baseline.parameters + 30


@pytest.mark.parametrize("size", [7, 500])
def test_rows_of_a_loader_are_valued_too(model: GraftedModel, size: int) -> None:
    """One batch alone has no spread, so that it is cut."""
    rows = replace(DATA, validation=DataLoader(part(2), batch_size=size))
    result = fit(model, rows, plan=CANDIDATES, budget="parameters=+25", epochs=16, batch_size=16)
    assert result.spending is not None and result.spending.spent > 0
    assert all(0 < error < 1 for value in result.spending.values for error in value.error)


def test_a_seed_whose_gain_is_sure_ships_before_one_that_validates_better(
    model: GraftedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, object] = {"seeds": 2, "control": False, "epochs": 15, "batch_size": 16, "cycles": 1}
    first = fit(model, margin=0.0, **asked)
    gains = [record.grafted.validation for record in first.seeds]
    assert gains[0] != gains[1] and min(gains) > first.baseline.validation
    surgery.put_back(model, GraftPlan(), result_start(model), build_dendrite)
    errors = iter([10.0 if gain == max(gains) else 1e-6 for gain in gains])
    monkeypatch.setattr(fitting.fit, "difference_error", lambda *args: next(errors))
    result = fit(model, **asked)
    assert result.shipped == "grafted" and result.grafted.validation == min(gains)


def test_a_gain_whose_error_cannot_be_told_does_not_ship_by_itself(
    model: GraftedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting.fit, "difference_error", lambda *args: None)
    warnings: list[str] = []
    result = fit(model, epochs=15, batch_size=16, observer=Observer(on_warning=warnings.append))
    assert result.shipped == "given" and result.margin is None
    assert any("how sure the gain is cannot be told" in line for line in warnings)
    surgery.put_back(model, GraftPlan(), result_start(model), build_dendrite)
    assert fit(model, epochs=15, batch_size=16, margin=0.0).shipped == "grafted"


@pytest.mark.parametrize("asked", [{"rule": "correlation"}, {"max_parameters": "+20%"}])
def test_what_a_budget_does_not_go_with_is_refused(model: GraftedModel, asked: dict[str, object]) -> None:
    plan = GraftPlan((replace(PLAN.grafts[0], detach="rule" in asked),))
    with pytest.raises(PlanError, match="a budget"):
        fit(model, plan=plan, budget="parameters=+25", **asked)


def test_a_trial_leaves_a_frozen_network_as_it_is(model: GraftedModel) -> None:
    before = model.snapshot()
    seen: list[bool] = []

    def look(record: EpochRecord, of: int) -> None:
        seen.append(
            all(torch.equal(tensor, before[f"base.{name}"]) for name, tensor in model.base.state_dict().items())
        )

    asked = {"rule": "gradient:freeze=true", "control": False, "epochs": 8}
    result = fit(model, plan=CANDIDATES, budget="parameters=+25", observer=Observer(on_epoch=look), **asked)
    assert len(seen) >= 2 and all(seen) and result.spending is not None


def test_nothing_is_bought_from_a_trial_that_diverged(model: GraftedModel) -> None:
    calls = []

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        calls.append(1)
        value = nn.functional.cross_entropy(outputs, targets)
        return value * float("nan") if len(calls) > 8 else value

    before = model.snapshot()
    result = fit(model, plan=CANDIDATES, budget="parameters=+25", epochs=16, loss=loss, control=False)
    assert result.diverged and result.shipped == "given" and result.spending is None
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def one_that_may_differ(outputs: Tensor, targets: Tensor) -> Tensor:
    """A loss with an operation that has no deterministic algorithm."""
    zeros = torch.zeros(len(targets))
    zeros.put_(torch.arange(len(targets)), torch.ones(len(targets)))
    return nn.functional.cross_entropy(outputs, targets) + zeros.sum()


def test_what_may_differ_each_time_is_refused_where_that_is_wanted(model: GraftedModel) -> None:
    assert fit(model, loss=one_that_may_differ, epochs=1).epochs
    with pytest.raises(TrainingError, match=r"put_ does not have a deterministic .*leave deterministic"):
        fit(model, loss=one_that_may_differ, epochs=1, deterministic=True)
    assert not torch.are_deterministic_algorithms_enabled()
    assert fit(model, epochs=1, deterministic=True).epochs == fit(model, epochs=1).epochs


def test_every_step_is_told_to_whoever_asks(model: GraftedModel) -> None:
    seen: list[StepRecord] = []
    fit(model, epochs=2, cycles=1, control=False, observer=Observer(on_step=seen.append))
    assert [(step.epoch, step.step) for step in seen] == [(epoch, step) for epoch in (1, 2) for step in (1, 2, 3)]
    assert {(step.arm, step.cycle, step.epochs, step.steps) for step in seen} == {("grafted", 1, 2, 3)}
