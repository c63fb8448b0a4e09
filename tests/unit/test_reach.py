"""Which calls an error reaches: by reading the graph beforehand, and by a probe with dendrites grafted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from graftkit import api as gk
from graftkit import surgery, tracing
from graftkit.core.errors import PlanError
from graftkit.dendrites import build_dendrite
from graftkit.model import DENDRITES_MARK, GraftedModel
from graftkit.plan import Graft, GraftPlan
from graftkit.tracing.reach import reached

Body = Callable[["Layers", Tensor], Any]


class Layers(nn.Module):
    """Three layers, and a body that uses them as it likes."""

    def __init__(self, body: Body):
        super().__init__()
        self.one, self.two, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.table, self.body = nn.Embedding(4, 4), body

    def forward(self, x: Tensor) -> Any:
        return self.body(self, x)


def learning(module: nn.Module, x: Tensor) -> set[str]:
    """The layers whose weights get an error in eager training: the truth to hold the rest against."""
    module.train().zero_grad()
    output = module(x)
    (output[0] if isinstance(output, tuple) else output).square().sum().backward()
    found = {n.removesuffix(".weight") for n, p in module.named_parameters() if p.grad is not None and p.grad.any()}
    module.zero_grad()
    return {name for name in found if "." not in name} - {"table"}


def _overwritten_part(m: Layers, x: Tensor) -> Tensor:
    y = x * 2
    y[:, :2] = m.one(x)[:, :2]
    return m.head(y)


def _added(m: Layers, x: Tensor) -> Tensor:
    y = x.clone()
    y.add_(m.one(x))
    return m.head(y)


def _copied_into_a_view(m: Layers, x: Tensor) -> Tensor:
    y = torch.zeros(x.shape[0], 2, 4)
    y[:, 1].copy_(m.one(x))
    return m.head(y.flatten(1)[:, 4:])


def _written_through_two_views(m: Layers, x: Tensor) -> Tensor:
    y = torch.zeros(x.shape[0], 2, 4)
    y.transpose(0, 1)[0].mul_(0).add_(m.one(x))
    return m.head(y.sum(1))


def _written_at_places(m: Layers, x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    y[torch.arange(x.shape[0]), torch.zeros(x.shape[0], dtype=torch.int64)] = m.one(x)[:, 0]
    return m.head(y)


def _filled_where(m: Layers, x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    y.masked_scatter_(x > -9, m.one(x))
    return m.head(y)


def _written_into_what_was_written(m: Layers, x: Tensor) -> Tensor:
    z = x.clone().add_(1)
    z[:, 0] = m.one(x)[:, 0]
    return m.head(z)


def _detached(m: Layers, x: Tensor) -> Tensor:
    return m.head(m.two(x) + m.one(x).detach())


def _without_gradients(m: Layers, x: Tensor) -> Tensor:
    with torch.no_grad():
        h = m.one(x)
    return m.head(m.two(h))


def _written_without_gradients(m: Layers, x: Tensor) -> Tensor:
    h = m.two(x) * 1.5
    with torch.no_grad():
        h.add_(m.one(x))
    return m.head(h)


def _written_through_detach(m: Layers, x: Tensor) -> Tensor:
    h = m.two(x) * 1.5
    h.detach().add_(m.one(x).detach())
    return m.head(h)


def _unused(m: Layers, x: Tensor) -> Tensor:
    m.one(x)
    return m.head(m.two(x))


def _other_output(m: Layers, x: Tensor) -> tuple[Tensor, Tensor]:
    return m.head(m.two(x)), m.one(x)


def _behind_a_choice(m: Layers, x: Tensor) -> Tensor:
    return m.head(m.two(x) + m.table(m.one(x).argmax(1)))


def _behind_a_comparison(m: Layers, x: Tensor) -> Tensor:
    return m.head(m.two(x) * (m.one(x) > 0).float())


def _behind_rounding(m: Layers, x: Tensor) -> Tensor:
    return m.head(m.two(x) + m.one(x).round())


def _straight_through(m: Layers, x: Tensor) -> Tensor:
    h = m.one(x)
    return m.head(m.two(x) + h + (h.round() - h).detach())


def _soft_choice(m: Layers, x: Tensor) -> Tensor:
    values, places = m.one(x).softmax(1).topk(2, dim=1)
    return m.head(m.two(x) + (values.unsqueeze(-1) * m.table(places)).sum(1))


ALL = {"one", "two", "head"}
CASES: dict[str, tuple[Body, set[str]]] = {
    "part overwritten": (_overwritten_part, {"one", "head"}),
    "added in place": (_added, {"one", "head"}),
    "copied into a view": (_copied_into_a_view, {"one", "head"}),
    "through two views": (_written_through_two_views, {"one", "head"}),
    "written at places": (_written_at_places, {"one", "head"}),
    "filled where": (_filled_where, {"one", "head"}),
    "written twice": (_written_into_what_was_written, {"one", "head"}),
    "detached": (_detached, {"two", "head"}),
    "no gradients": (_without_gradients, {"two", "head"}),
    "written without gradients": (_written_without_gradients, {"two", "head"}),
    "written through detach": (_written_through_detach, {"two", "head"}),
    "unused": (_unused, {"two", "head"}),
    "another output": (_other_output, {"two", "head"}),
    "behind a choice": (_behind_a_choice, {"two", "head"}),
    "behind a comparison": (_behind_a_comparison, {"two", "head"}),
    "behind rounding": (_behind_rounding, {"two", "head"}),
    "straight through": (_straight_through, ALL),
    "soft choice": (_soft_choice, ALL),
}


@pytest.mark.parametrize("name", CASES)
def test_sites_are_the_calls_that_an_error_reaches(name: str) -> None:
    """No more, or grafting everything would fail; no fewer, or a site would be missed without cause."""
    body, expected = CASES[name]
    torch.manual_seed(0)
    module, x = Layers(body), torch.randn(8, 4)
    assert learning(module, x) == expected
    traced = tracing.trace_module(module, x, name=name)
    assert {site.key for site in traced.sites} == expected
    reasons = {call.key: call.reason for call in traced.skipped}
    assert {"one", "head"} - expected <= set(reasons)  # `two` is not called in every body
    assert all("reach" in reason for reason in reasons.values())
    everything = GraftPlan(tuple(_graft(key) for key in sorted(expected)))
    gk.graft(traced, everything)  # raises where the probe finds one that is not reached
    model = gk.graft(traced, everything).train()
    with torch.no_grad():
        for p in model.dendrites.parameters():
            p.normal_()
    output = model(x)
    output.square().sum().backward()
    assert all(any(p.grad is not None and p.grad.any() for p in model.at(key).parameters()) for key in expected)


def _graft(site: str) -> Graft:
    return Graft(site, "full", {})


def test_reached_stops_at_detach_unless_asked() -> None:
    traced = tracing.trace_module(Layers(_detached), torch.randn(2, 4), name="net")
    (output,) = next(n for n in traced.eval_graph.graph.nodes if n.op == "output").args
    assert isinstance(output, fx.Node)
    taught = reached(traced.eval_graph, output)
    used = reached(traced.eval_graph, output, through_detach=True)
    weights = {node.target for node in used if node.op == "get_attr"}
    assert {"one.weight", "two.weight", "head.weight"} <= weights
    assert {node.target for node in taught if node.op == "get_attr"} == weights - {"one.weight", "one.bias"}


# ── the probe ────────────────────────────────────────────────────────────────────────────────────


class Gated(nn.Module):
    """Behind each site stands something that is zero at first: a batch norm's weight, a layer scale, a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.normed = nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 3, padding=1)
        self.norm, self.drop = nn.BatchNorm2d(4), nn.Dropout(0.3)
        self.scaled, self.scale = nn.Conv2d(4, 4, 1), nn.Parameter(torch.zeros(4, 1, 1))
        self.gated, self.gate = nn.Linear(4, 4), nn.Parameter(torch.tensor(0.0))
        self.silent, self.head = nn.Linear(4, 4), nn.Linear(4, 3)
        for zero in (self.norm.weight, self.silent.weight, self.silent.bias):
            nn.init.zeros_(zero)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.norm(self.normed(x))
        x = x + self.scale * self.scaled(x)
        h = self.drop(x.mean((2, 3)))
        h = h + self.gate.tanh() * self.gated(h)
        return self.head(h + self.silent(h.relu()))


@pytest.mark.parametrize("training", [True, False])
def test_the_probe_sees_through_zeros_and_leaves_everything_as_it_was(training: bool) -> None:
    torch.manual_seed(0)
    module = Gated()
    traced = tracing.trace_module(module, torch.randn(4, 2, 5, 5), name="net")
    model = surgery.empty(traced)
    grafts = [_graft(site.key) for site in traced.sites]
    assert len(grafts) == 6
    surgery.graft(model, grafts, build_dendrite, seed=0)
    model.train(training)
    before = model.snapshot()
    modes = [m.training for m in model.modules()]
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    assert surgery.unreached(model, [one.site for one in grafts]) == ()
    assert torch.equal(torch.rand(3), expected)
    assert [m.training for m in model.modules()] == modes
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not any(b.requires_grad for b in model.buffers())
    assert all(p.grad is None for p in model.parameters())


def test_trained_strengths_come_back_bit_for_bit() -> None:
    traced = tracing.trace_module(Layers(_added), torch.randn(4, 4), name="net")
    model = gk.graft(traced, GraftPlan((_graft("one"), _graft("head"))))
    with torch.no_grad():
        for index, strength in enumerate(model.at("one").members()[0].strengths()):
            strength.normal_().mul_(index + 0.3)
            strength[0] = 0.0  # a single silent neuron is no silent dendrite
    kept = model.snapshot()
    surgery.check_reached(model, [_graft("one")], build_dendrite)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in kept.items())
    assert model.plan.sites() == ("one", "head") and len(model.plan.at("one")) == 1


def test_frozen_dendrites_do_not_stand_in_the_way_of_further_ones() -> None:
    traced = tracing.trace_module(Layers(_added), torch.randn(4, 4), name="net")
    model = gk.graft(traced, GraftPlan((_graft("one"),)))
    for parameter in model.at("one").parameters():
        parameter.requires_grad_(False)
    surgery.check_reached(model, [_graft("one")], build_dendrite)
    assert [p.requires_grad for p in model.at("one").parameters()] == [False] * len(list(model.at("one").parameters()))


def test_a_frozen_network_still_teaches_its_dendrites() -> None:
    module = Layers(_added)
    traced = tracing.trace_module(module.requires_grad_(False), torch.randn(4, 4), name="net")
    assert [site.key for site in traced.sites] == ["one", "head"]
    gk.graft(traced, GraftPlan((_graft("one"),)))


def test_a_layer_that_is_off_on_the_example_is_reached_all_the_same() -> None:
    def through_relu(m: Layers, x: Tensor) -> Tensor:
        return m.head(m.one(x).relu() + x)

    module = Layers(through_relu)
    nn.init.constant_(module.one.bias, -100.0)  # as a neuron that only rare rows wake
    model = gk.graft(tracing.trace_module(module, torch.randn(2, 4), name="net"), GraftPlan((_graft("one"),)))
    assert model.plan.sites() == ("one",)
    assert module.one.bias.eq(-100).all()


def _cut_off(model: GraftedModel, site: str) -> None:
    """Let nobody read what the dendrites of a site give, as surgery at a wrong place would."""
    for graph in model.graphs:
        joined = next(node for node in graph.graph.nodes if node.meta.get(DENDRITES_MARK) == site)
        joined.replace_all_uses_with(joined.args[1], delete_user_cb=lambda user, joined=joined: user is not joined)
        graph.recompile()


def test_a_dendrite_that_is_never_reached_fails_with_its_sites_name() -> None:
    traced = tracing.trace_module(
        Layers(lambda m, x: m.head(functional.gelu(m.one(x)) + m.two(x))), torch.randn(4, 4), name="net"
    )
    model = surgery.empty(traced)
    surgery.graft(model, [_graft("one"), _graft("two")], build_dendrite, seed=0)
    _cut_off(model, "two")
    assert surgery.unreached(model, ["one", "two"]) == ("two",)
    with pytest.raises(
        PlanError, match=r"no error at the output 'output' reaches the dendrites at two; .*!two"
    ) as told:
        surgery.check_reached(model, [_graft("two")], build_dendrite)
    assert "\n" not in str(told.value) and "one" not in str(told.value).split(";")[0].split("at ")[-1]
    assert len(model.plan.at("two")) == 1  # the throw-away one is gone


def test_a_dendrite_reached_in_training_alone_or_evaluation_alone() -> None:
    """What counts is the graph that is trained."""
    traced = tracing.trace_module(Layers(lambda m, x: m.head(m.one(x))), torch.randn(4, 4), name="net")
    model = surgery.empty(traced)
    surgery.graft(model, [_graft("one")], build_dendrite, seed=0)
    only = GraftedModel.__new__(GraftedModel)
    only.__dict__.update(model.__dict__)
    only.graphs = (model.graphs[0], model.graphs[0])
    assert surgery.unreached(only, ["one"]) == ()


def test_nothing_grafted_is_nothing_unreached() -> None:
    traced = tracing.trace_module(Layers(_added), torch.randn(4, 4), name="net")
    model = surgery.empty(traced)
    assert surgery.unreached(model, []) == ()
    surgery.check_reached(model, [], build_dendrite)
    assert model.plan == GraftPlan()
