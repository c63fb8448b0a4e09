"""Budgets: how they are written, what they are spent on, and that they are kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from graftkit import api, augmenting, surgery, tracing
from graftkit.core.errors import PlanError
from graftkit.core.values import Spending
from graftkit.costs import COSTS, parse_budget
from graftkit.dendrites import build_dendrite
from graftkit.folding import numbers_in, read_onnx
from graftkit.model import GraftedModel
from graftkit.plan import Graft, GraftPlan
from graftkit.spending import Offer, choose, spend, surely
from graftkit.training import Worth


@pytest.mark.parametrize(
    ("text", "given_amount", "allowance"),
    [
        ("parameters=+10%", 1000, 100),
        ("parameters=+1,500", 1000, 1500),
        ("parameters=+2k", 1000, 2000),
        ("macs=+1.5M", 7, 1.5e6),
        ("size=+4KB", 7, 4000),
        ("size=+1MiB", 7, 2**20),
        ("latency=+0.5ms", 7, 500),
        ("latency=+25%", 80, 20),
        ("latency=+50\N{MICRO SIGN}s", 7, 50),
        (" macs = +3 ", 7, 3),
    ],
)
def test_a_budget_is_what_may_be_added(text: str, given_amount: float, allowance: float) -> None:
    assert parse_budget(text).allowance(given_amount) == pytest.approx(allowance)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("10%", "write WHAT=\\+HOW MUCH"),
        ("parameters=10%", "write parameters=\\+10%"),
        ("parameter=+10%", "unknown kind of budget 'parameter'.*mean parameters"),
        ("parameters=+-5", "'-5' is no positive number"),
        ("parameters=+0", "'0' is no positive number"),
        ("parameters=+nan%", "'nan' is no positive number"),
        ("parameters=+5KB", "parameters has the units none, k, K, M, G"),
        ("latency=+5", "latency has the units us, ms, s"),
        ("size=+", "'' is no positive number"),
        ("macs=", "write macs=\\+10%"),
        ("parameters=-5%", "write parameters=\\+5%$"),
        ("parameters=0", "write parameters=\\+10%$"),
        ("parameters=+10%,macs=+5%", "one of parameters, macs, size, latency; write one alone"),
    ],
)
def test_what_is_no_budget_is_refused(text: str, why: str) -> None:
    with pytest.raises(PlanError, match=why) as caught:
        parse_budget(text)
    assert "\n" not in str(caught.value)


# ── choosing ─────────────────────────────────────────────────────────────────────────────────────


def test_the_densest_comes_first_and_what_is_left_goes_on() -> None:
    offers = [Offer((0, 10), (0, 10)), Offer((0, 9), (0, 3)), Offer((0, 1, 3), (0, 1, 2))]
    assert choose(offers, 3) == [0, 1, 0]
    assert choose(offers, 5) == [0, 1, 2]
    assert choose(offers, 13) == [0, 1, 2]  # the two cheap ones leave 8, and the first costs 10
    assert choose(offers, 15) == [1, 1, 2]
    assert choose(offers, 0.5) == [0, 0, 0]


def test_a_first_neuron_that_pays_for_what_all_share_can_be_bought_with_the_others() -> None:
    """One neuron costs 9 and eight cost 16: alone it never pays, together they beat the cheap one."""
    shared = Offer(tuple(float(n) for n in range(9)), (0, *(8.0 + n for n in range(1, 9))))
    assert choose([shared, Offer((0, 2.0), (0, 6.0))], 16) == [8, 0]


def test_what_is_worth_nothing_is_not_bought() -> None:
    assert choose([Offer((0, 0, -1), (0, 1, 2)), Offer((0,), (0,))], 100) == [0, 0]


@given(
    st.lists(
        st.lists(st.tuples(st.floats(0, 5), st.floats(0, 9)), max_size=5),
        max_size=5,
    ),
    st.floats(0, 30),
)
def test_never_more_than_allowed(steps: list[list[tuple[float, float]]], allowance: float) -> None:
    offers = []
    for step in steps:
        worth, price = [0.0], [0.0]
        for more, cost in step:
            worth.append(worth[-1] + more)
            price.append(price[-1] + cost)
        offers.append(Offer(tuple(worth), tuple(price)))
    taken = choose(offers, allowance)
    spent = sum(offer.price[step] for offer, step in zip(offers, taken, strict=True))
    assert spent <= allowance * (1 + 1e-9) + 1e-9
    left = allowance - spent
    for offer, step in zip(offers, taken, strict=True):  # nothing that would add and fit is left behind
        for other in range(step + 1, len(offer.worth)):
            price = offer.price[other] - offer.price[step]
            assert price > left - 1e-6 or offer.worth[other] <= offer.worth[step]


# ── spending ─────────────────────────────────────────────────────────────────────────────────────

NET = (nn.Conv1d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv1d(6, 20, 3, padding=1), nn.ReLU(), nn.Flatten())
CANDIDATES = (
    Graft("0", "context", (("mode", "add"), ("units", 2))),
    Graft("0", "full"),
    Graft("2", "lowrank", (("rank", 1),)),
    Graft("2", "full"),
)


@pytest.fixture(scope="module")
def model() -> GraftedModel:
    torch.manual_seed(0)
    return surgery.empty(tracing.trace_module(nn.Sequential(*NET), (torch.randn(2, 3, 8),), name="net"))


def worths(model: GraftedModel, values: dict[int, list[float]], error: float = 0.1) -> list[Worth]:
    """A worth for each candidate: nothing, but for the neurons (from 0 on) of those that are named."""
    found = []
    for number, graft in enumerate(CANDIDATES):
        mean = torch.zeros(model.traced.site(graft.site).out_channels, dtype=torch.float64)
        own = torch.tensor(values.get(number, []), dtype=torch.float64)
        mean[: len(own)] = own
        found.append(Worth(graft, mean, torch.full_like(mean, error), error * len(mean) ** 0.5))
    return found


def test_neurons_that_are_worth_more_than_their_error_are_bought(model: GraftedModel) -> None:
    grafts, spent = spend(
        model, worths(model, {1: [-0.2, 2.0, -0.1, 3.0, -0.1, -0.2]}), parse_budget("parameters=+50%"), epochs=3
    )
    assert [(g.site, g.kind, g.neurons) for g in grafts] == [("0", "full", (1, 3))]
    assert spent.values[1].kept == (1, 3) and spent.values[1].paying == (3, 1)
    before = model.parameter_count()
    surgery.graft(model, grafts, build_dendrite, seed=0)
    assert model.parameter_count() - before == spent.spent <= spent.values[1].spent <= spent.allowance == before / 2
    surgery.truncate(model, type(model.plan)())


def test_neurons_that_do_not_differ_are_sure_together() -> None:
    """Six times 0.09 ± 0.10, errors of their own: together 0.54 ± 0.24."""
    same = torch.full((6,), 0.09, dtype=torch.float64)
    found = surely(Worth(CANDIDATES[0], same, torch.full_like(same, 0.1), 0.1 * 6**0.5))
    assert found.tolist() == pytest.approx([0.09 - 0.1 / 6**0.5] * 6)


def test_neurons_that_differ_beyond_their_errors_keep_their_own_worth() -> None:
    mean = torch.tensor([5.0, -5.0, 1.0, 0.0], dtype=torch.float64)
    found = surely(Worth(CANDIDATES[0], mean, torch.full_like(mean, 0.01), 0.02))
    assert found.tolist() == pytest.approx((mean - 0.01).tolist(), abs=1e-3)


@given(st.lists(st.floats(-3, 3), min_size=2, max_size=12), st.floats(0.01, 2), st.floats(0, 3))
def test_what_is_sure_keeps_the_order_and_lies_below_what_is_drawn_together(
    values: list[float], error: float, whole: float
) -> None:
    mean = torch.tensor(values, dtype=torch.float64)
    found = surely(Worth(CANDIDATES[0], mean, torch.full_like(mean, error), whole))
    assert (found <= torch.maximum(mean, mean.mean()) + 1e-9).all()
    order = mean.argsort()
    assert (found[order].diff() >= -1e-9).all()


def test_neurons_that_are_not_served_are_left_out() -> None:
    mean, error = torch.tensor([0.0, 2.0, 0.0, 2.0]).double(), torch.tensor([0.0, 0.1, 0.0, 0.1]).double()
    found = surely(Worth(CANDIDATES[0], mean, error, 0.1))
    assert found[[0, 2]].tolist() == [0, 0] and (found[[1, 3]] > 1.8).all()


def test_all_of_them_are_no_list_of_neurons(model: GraftedModel) -> None:
    grafts, spent = spend(model, worths(model, {2: [1.0] * 20}), parse_budget("parameters=+50%"), epochs=3)
    assert [(g.site, g.kind, g.neurons) for g in grafts] == [("2", "lowrank", None)]
    assert spent.values[2].kept == tuple(range(20)) and spent.values[2].price == spent.spent


def test_nothing_is_bought_where_nothing_pays_or_fits(model: GraftedModel) -> None:
    assert spend(model, worths(model, {0: [0.03] * 6}), parse_budget("parameters=+50%"), epochs=3)[0] == ()
    grafts, spent = spend(model, worths(model, {0: [5.0] * 6}), parse_budget("parameters=+3"), epochs=3)
    assert grafts == () and spent.spent == 0 and not any(value.kept for value in spent.values)


def test_what_costs_less_without_those_that_are_not_bought_is_bought(model: GraftedModel) -> None:
    """Behind another dendrite it has a weight more for it, which nobody needs where that one pays nothing."""
    price = COSTS.find("parameters")().added(model, [Graft("0", "full", neurons=(1,))])
    found = worths(model, {1: [-0.2, 5.0, -0.1]})
    grafts, spent = spend(model, found, parse_budget(f"parameters=+{price:.0f}"), epochs=3)
    assert [(g.site, g.kind, g.neurons) for g in grafts] == [("0", "full", (1,))]
    assert spent.values[1].price > 6 * price and spent.spent == spent.allowance == price
    assert spend(model, found, parse_budget(f"parameters=+{price - 1:.0f}"), epochs=3)[0] == ()


def test_what_is_left_is_spent_on_more_of_the_same(model: GraftedModel) -> None:
    price = COSTS.find("parameters")().added(model, [Graft("0", "full", neurons=(1, 3, 4))])
    found = worths(model, {1: [-0.2, 5.0, -0.1, 4.0, 3.0]})
    grafts, _ = spend(model, found, parse_budget(f"parameters=+{price:.0f}"), epochs=3)
    assert [(g.site, g.kind, g.neurons) for g in grafts] == [("0", "full", (1, 3, 4))]


def test_all_neurons_are_served_where_some_cost_more_than_all() -> None:
    """As they do in bytes in a small network: one more operator spreads what some have over all."""
    torch.manual_seed(0)
    small = surgery.empty(
        tracing.trace_module(nn.Sequential(nn.Linear(6, 12), nn.ReLU()), (torch.randn(2, 6),), name="n")
    )
    graft, size = Graft("0", "full"), COSTS.find("size")()
    whole, some = size.added(small, [graft]), size.added(small, [replace(graft, neurons=tuple(range(8)))])
    assert some > whole
    budget = parse_budget(f"size=+{whole + 1:.0f}")

    def bought(harm: float, error: float = 0.1, of: Graft = graft) -> tuple[tuple[Graft, ...], Spending]:
        mean = torch.tensor([1.0] * 8 + [-harm] * 4).double()
        errors = torch.tensor([0.1] * 8 + [error] * 4).double()
        return spend(small, [Worth(of, mean, errors, 0.1 * 12**0.5)], budget, epochs=3)

    grafts, spent = bought(harm=0.2)
    assert grafts == (graft,) and spent.values[0].kept == tuple(range(12))
    assert bought(harm=50)[0] == ()  # what is harmed counts
    assert bought(harm=0, error=0, of=replace(graft, neurons=tuple(range(8))))[0] == ()  # nor are others served


def test_a_file_that_holds_more_than_the_budget_says_so(model: GraftedModel, tmp_path: Path) -> None:
    """`full` for two neurons of six is written narrow, and what spreads it over all holds twelve numbers more."""
    grafts, spent = spend(
        model, worths(model, {1: [-0.2, 2.0, -0.1, 3.0, -0.1, -0.2]}), parse_budget("parameters=+22"), epochs=3
    )
    grown = api.graft(model.traced, GraftPlan(grafts))
    with torch.no_grad():
        for strength in grown.at("0").members()[0].strengths():
            strength.fill_(0.5)
    file = api.export(grown, tmp_path / "a.onnx")
    held = numbers_in(read_onnx(file))
    assert held > round(spent.given + spent.allowance) >= grown.parameter_count()
    plain = numbers_in(read_onnx(api.export(api.graft(model.traced, GraftPlan()), tmp_path / "plain.onnx")))
    (line,) = augmenting._beyond(spent, grown, file)
    assert f"the file holds {held - plain:,} numbers for dendrites where the budget allows 22:" in line
    assert not list(augmenting._beyond(replace(spent, cost="size"), grown, file))
    assert not list(augmenting._beyond(None, grown, file))
    assert not list(augmenting._beyond(replace(spent, allowance=held - plain), grown, file))
    assert not list(augmenting._beyond(replace(spent, allowance=1), api.graft(model.traced, GraftPlan()), file))


def test_an_endless_error_pays_nothing(model: GraftedModel) -> None:
    """One batch of rows gives no standard error."""
    found = worths(model, {1: [5.0]}, error=float("inf"))
    assert spend(model, found, parse_budget("parameters=+50%"), epochs=3)[0] == ()


@pytest.mark.parametrize(("cost", "share"), [("parameters", 4), ("parameters", 60), ("macs", 60)])
def test_a_budget_is_kept_whatever_it_is_in(model: GraftedModel, cost: str, share: int) -> None:
    values = {number: [1.0 + 0.1 * n for n in range(6)] for number in range(4)}
    grafts, spent = spend(model, worths(model, values), parse_budget(f"{cost}=+{share}%"), epochs=3)
    assert spent.spent <= spent.allowance
    assert spent.spent == (COSTS.find(cost)().added(model, grafts) if grafts else 0)
    assert grafts


def test_a_spending_comes_back_from_its_json(model: GraftedModel) -> None:
    _, spent = spend(model, worths(model, {0: [5.0] * 6}), parse_budget("parameters=+50%"), epochs=3)
    assert Spending.from_json(spent.to_json()) == spent
