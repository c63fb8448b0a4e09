"""What every kind of budget in the table promises, for every kind of dendrite."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from graftkit import surgery, tracing
from graftkit.costs import COSTS, Cost, written
from graftkit.dendrites import DENDRITES, build_dendrite, make_kind, options_of
from graftkit.model import GraftedModel
from graftkit.plan import Graft

SITES = ("conv", "dense", "upward")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1, stride=2)
        self.upward = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.dense = nn.Linear(8, 12)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(torch.relu(self.upward(torch.relu(self.conv(x)))).mean((2, 3)))


@pytest.fixture(scope="module")
def model() -> GraftedModel:
    torch.manual_seed(0)
    return surgery.empty(tracing.trace_module(Net(), (torch.randn(2, 3, 12, 12),), name="net"))


@pytest.fixture(params=COSTS)
def cost(request: pytest.FixtureRequest) -> Cost:
    return COSTS.find(request.param)()


def candidates(model: GraftedModel) -> list[Graft]:
    """Every kind at every site that it fits, several at each."""
    kinds = [make_kind(name, {}) for name in DENDRITES]
    sites = [model.traced.site(key) for key in SITES]
    return [Graft(s.key, k.name, options_of(k)) for s in sites for k in kinds if k.refuses(s) is None]


def counts(model: GraftedModel, grafts: list[Graft]) -> list[list[int]]:
    sizes = [model.traced.site(graft.site).out_channels for graft in grafts]
    return [[1, size // 2, size] for size in sizes]


def test_it_is_called_what_the_table_says_and_has_units(cost: Cost) -> None:
    assert COSTS.find(cost.name) is type(cost) and cost == type(cost)()
    assert cost.unit and 1 in cost.units.values() and all(each > 0 for each in cost.units.values())


def test_what_is_given_is_something_and_the_model_stays(model: GraftedModel, cost: Cost) -> None:
    before, plan = model.snapshot(), model.plan
    assert cost.given(model) > 0
    added = cost.added(model, candidates(model)[:1])
    assert added > 0 or cost.name == "latency"  # a clock may say anything
    assert model.plan == plan and not model.dendrites
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_there_is_a_price_for_each_number_of_neurons(model: GraftedModel, cost: Cost) -> None:
    grafts = candidates(model)
    if cost.name in ("size", "latency"):  # a file or two for each
        grafts = [graft for graft in grafts if graft.site == "conv" and graft.kind in ("context", "full")]
    asked = counts(model, grafts)
    found = cost.prices(model, grafts, asked)
    assert [len(own) for own in found] == [len(own) for own in asked]
    if cost.name != "latency":
        assert all(price > 0 for own in found for price in own)
    if cost.name == "parameters":  # to be served alone may take more nodes of a file, and more arithmetic
        assert all(own == sorted(own) for own in found)
    assert model.plan.grafts == () and not model.dendrites


@pytest.mark.parametrize("name", ["parameters", "macs"])
def test_prices_add_up_to_what_the_grafts_add(model: GraftedModel, name: str) -> None:
    cost, grafts = COSTS.find(name)(), candidates(model)
    whole = [own[-1] for own in cost.prices(model, grafts, counts(model, grafts))]
    assert sum(whole) == cost.added(model, grafts)
    before = cost.given(model)
    surgery.graft(model, grafts, build_dendrite, seed=0)
    try:
        assert cost.given(model) - before == sum(whole)
    finally:
        surgery.truncate(model, type(model.plan)())


def test_the_size_of_a_site_alone_is_about_that_within_the_model(model: GraftedModel) -> None:
    cost = COSTS.find("size")()
    graft = Graft("conv", "context", options_of(make_kind("context", {})))
    ((price,),) = cost.prices(model, [graft], [[16]])
    assert price == pytest.approx(cost.added(model, [graft]), rel=0.15)


class Merged(nn.Module):
    """Rows and positions become one dimension before the call."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.head = nn.Linear(8, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.wide(x.reshape(-1, 8)))
        return self.head(hidden.reshape(x.shape[0], -1, 12).mean(1))


def test_a_site_alone_is_measured_on_all_positions_of_a_row() -> None:
    model = surgery.empty(tracing.trace_module(Merged(), (torch.randn(2, 50, 8),), name="net"))
    shapes = []

    class Looking(written.Measured):
        def more(self, pair: written.Pair) -> float:
            shapes.append([x.shape for x in pair.inputs.values()])
            return 1.0

    Looking().prices(model, [Graft("wide", "full")], [[3, 12]])
    assert shapes and all(shape == [(50, 8)] for shape in shapes)


@pytest.mark.parametrize(("kind", "count"), [("full", 5), ("full", 96), ("full", 100), ("context", 100)])
def test_a_size_is_right_for_few_neurons_and_where_a_branch_stops_being_narrow(kind: str, count: int) -> None:
    net = nn.Sequential(nn.Linear(16, count), nn.ReLU(), nn.Linear(count, 2))
    model = surgery.empty(tracing.trace_module(net, (torch.randn(2, 16),), name="net"))
    cost, graft = COSTS.find("size")(), Graft("0", kind, options_of(make_kind(kind, {})))
    numbers = [n for n in (1, 2, 8, 12, 13, 14, 16, 20, 47, 72) if n < count] + [count]
    (found,) = cost.prices(model, [graft], [numbers])
    for at in (0, len(numbers) // 2):
        some = replace(graft, neurons=tuple(range(numbers[at])))
        assert found[at] == pytest.approx(cost.added(model, [some]), rel=0.1)


class Unbatched(nn.Module):
    """A call that reads no rows."""

    def __init__(self) -> None:
        super().__init__()
        self.seed, self.wide, self.head = nn.Parameter(torch.randn(5)), nn.Linear(5, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x * torch.relu(self.wide(self.seed)))


def test_a_site_that_cannot_be_traced_alone_is_measured_in_its_model() -> None:
    model = surgery.empty(tracing.trace_module(Unbatched(), (torch.randn(2, 8),), name="net"))
    graft = Graft("wide", "full")
    ((price,),) = COSTS.find("size")().prices(model, [graft], [[8]])
    assert price == COSTS.find("size")().added(model, [graft])
