"""What every learning rule promises: what it grows, what it trains, what it leaves alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from graftkit import api, surgery, tracing
from graftkit.core.errors import PlanError
from graftkit.dendrites import DENDRITES, build_dendrite, make_kind
from graftkit.model import GraftedModel
from graftkit.plan import Graft, GraftPlan
from graftkit.rules import RULES, Correlation


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 4, 3, padding=1)
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.norm(self.conv(x))).mean(2))


@pytest.fixture(scope="module")
def shared() -> tuple[GraftedModel, dict[str, Tensor]]:
    torch.manual_seed(0)
    model = surgery.empty(tracing.trace_module(Net(), (torch.randn(2, 2, 5),), name="net"))
    return model, model.snapshot()


@pytest.fixture
def model(shared: tuple[GraftedModel, dict[str, Tensor]]) -> Iterator[GraftedModel]:
    given, state = shared
    surgery.put_back(given, GraftPlan(), state, build_dendrite)
    given.requires_grad_(True)
    given.zero_grad(set_to_none=True)
    yield given
    surgery.put_back(given, GraftPlan(), state, build_dendrite)


def rows(size: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(size, 2, 5, generator=generator)
    return inputs, (inputs[:, 0].mean(1) * inputs[:, 1].mean(1) > 0).long()


def grafts(name: str) -> tuple[Graft, ...]:
    return tuple(Graft(site, "full", detach=RULES[name].detaches) for site in ("conv", "head"))


@pytest.fixture(params=RULES)
def rule(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_defaults_build_and_the_name_is_the_tables(rule: str) -> None:
    made = RULES[rule]()
    assert made.name == rule and made == RULES[rule]() and hash(made) == hash(RULES[rule]())
    assert made.phases and made.phases[-1] == "neuron" and set(made.phases) <= {"neuron", "dendrite"}
    assert api.find_rule(rule) == made


def test_growing_changes_no_output(model: GraftedModel, rule: str) -> None:
    inputs, _ = rows(6)
    before = {name: tensor.clone() for name, tensor in model.snapshot().items()}
    expected = model.eval()(inputs)
    candidates = RULES[rule]().grow(model, grafts(rule), build_dendrite, functional.cross_entropy, seed=0)
    assert torch.equal(model.eval()(inputs), expected)
    assert (candidates is None) == ("dendrite" not in RULES[rule].phases)
    assert len(model.plan.grafts) == (2 if candidates is None else 0)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())


def test_it_grows_what_the_seed_says(model: GraftedModel, rule: str) -> None:
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(len(found))
        made = RULES[rule]().grow(model, grafts(rule), build_dendrite, functional.cross_entropy, seed=seed)
        parameters = made.parameters() if made else list(model.dendrites.parameters())
        found.append(torch.cat([p.detach().flatten() for p in parameters]))
        surgery.truncate(model, GraftPlan())
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def grown(model: GraftedModel, rule: str) -> GraftedModel:
    """With dendrites, as the neuron phase finds them."""
    surgery.graft(model, grafts(rule), build_dendrite, seed=0)
    return model


def test_what_is_trained_includes_neurons_and_strengths_and_nothing_frozen(model: GraftedModel, rule: str) -> None:
    grown(model, rule)
    model.get_parameter("base.head.weight").requires_grad_(False)
    trainable = {id(p) for p in RULES[rule]().trainable(model)}
    assert id(model.get_parameter("base.conv.weight")) in trainable
    assert id(model.get_parameter("base.head.weight")) not in trainable
    for site in ("conv", "head"):
        for dendrite in model.at(site).members():
            assert all(id(p) in trainable for p in dendrite.strengths())
    assert trainable <= {id(p) for p in model.parameters()}


def test_frozen_the_network_stands_still_and_dendrites_alone_learn(model: GraftedModel, rule: str) -> None:
    made = api.find_rule(f"{rule}:freeze=true")
    assert made.freeze and not RULES[rule]().freeze
    grown(model, rule)
    base = {id(p) for p in model.base.parameters()}
    strengths = {id(p) for site in ("conv", "head") for d in model.at(site).members() for p in d.strengths()}
    trainable = {id(p) for p in made.trainable(model)}
    assert strengths <= trainable and not trainable & base


def test_one_step_makes_the_loss_smaller(model: GraftedModel, rule: str) -> None:
    grown(model, rule).train()
    inputs, targets = rows(64)
    optimizer = torch.optim.SGD(RULES[rule]().trainable(model), lr=0.01)
    losses = []
    for _ in range(2):
        loss = functional.cross_entropy(model(inputs), targets)
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[1] < losses[0]
    assert all(dendrite.served().any() for site in ("conv", "head") for dendrite in model.at(site).members())


def test_errors_flow_through_dendrites_or_do_not(model: GraftedModel, rule: str) -> None:
    """`detaches` says which: the conv's gradient with awake dendrites at the head, errors by themselves held fixed."""
    surgery.graft(model, [Graft("head", "full", detach=RULES[rule].detaches)], build_dendrite, seed=0)
    with torch.no_grad():
        for p in model.dendrites.parameters():
            p.fill_(0.3)
        model.get_parameter("base.head.weight").zero_()  # so that nothing reaches the conv but through dendrites
    inputs, targets = rows(16)
    weight = model.get_parameter("base.conv.weight")
    loss = functional.cross_entropy(model.eval()(inputs) * torch.tensor([1.0, 2.0, 3.0]), targets)
    (gradient,) = torch.autograd.grad(loss, weight)
    assert bool(gradient.any()) is not RULES[rule].detaches


# ── rules with a dendrite phase ──────────────────────────────────────────────────────────────────

WITH_CANDIDATES = [name for name, kind in RULES.items() if "dendrite" in kind.phases]


@pytest.mark.parametrize("name", WITH_CANDIDATES)
def test_candidates_learn_while_the_network_stands_still(model: GraftedModel, name: str) -> None:
    before = model.snapshot()
    candidates = RULES[name]().grow(model, grafts(name), build_dendrite, functional.cross_entropy, seed=0)
    assert candidates is not None
    inputs, targets = rows(128)
    assert candidates.watch((inputs,), targets) and candidates.steps() >= 1
    optimizer = torch.optim.Adam(candidates.parameters(), lr=0.02)
    losses = []
    for _ in range(15):
        for loss in candidates.losses():
            losses.append(float(loss.detach()))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert losses[-1] < losses[0]
    assert all(torch.equal(model.state_dict()[key], tensor) for key, tensor in before.items())
    assert all(p.grad is None for p in model.base.parameters())
    own = {id(p) for p in model.parameters()}
    assert not any(id(p) in own for p in candidates.parameters())
    said = candidates.install([rows(256, seed=1)])
    assert "conv" in said and "head" in said and "\n" not in said
    assert model.plan.grafts and all(graft.neurons for graft in model.plan.grafts)
    expected = surgery.empty(model.traced).eval()(inputs)
    assert torch.equal(model.eval()(inputs), expected)  # installed at zero strength
    for graft in model.plan.grafts:
        assert all(id(p) in {id(q) for q in candidates.parameters()} or not p.any()
                   for p in model.at(graft.site).parameters())  # fmt: skip


@pytest.mark.parametrize("kind", DENDRITES)
@pytest.mark.parametrize("name", WITH_CANDIDATES)
def test_candidates_of_every_kind_have_a_gradient(model: GraftedModel, name: str, kind: str) -> None:
    sites = [s for s in ("conv", "head") if make_kind(kind, {}).refuses(model.traced.site(s)) is None]
    plan = [Graft(site, kind, detach=True) for site in sites]
    blank = surgery.blank(model, plan, build_dendrite)[0]
    if len(blank.strengths()) == len(list(blank.parameters())):
        assert kind in ("own", "around", "pooled")
        with pytest.raises(PlanError, match=f"all numbers of {kind} are strengths"):
            RULES[name]().grow(model, plan, build_dendrite, functional.cross_entropy, seed=0)
        return
    candidates = RULES[name]().grow(model, plan, build_dendrite, functional.cross_entropy, seed=0)
    assert candidates is not None
    candidates.watch(rows(64)[:1], rows(64)[1])
    for loss in candidates.losses():
        loss.backward()
    # a strength that only joins has nothing to say yet
    told = [p for p in candidates.parameters() if p.grad is not None]
    assert all(torch.isfinite(p.grad).all() and p.grad.any() for p in told if p.grad is not None)
    assert len(told) >= 2 * len(sites)


def test_a_pool_needs_a_candidate() -> None:
    with pytest.raises(PlanError, match="the pool must hold 1 or more candidates, not 0"):
        Correlation(pool=0)


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(PlanError, match="unknown learning rule 'gradent'; there are gradient, correlation"):
        api.find_rule("gradent")
