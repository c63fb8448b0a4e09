"""Dendrites go in and come out without a trace; a plan that does not fit changes nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from graftkit import api, surgery, tracing
from graftkit.core.errors import PlanError
from graftkit.dendrites import build_dendrite
from graftkit.model import GraftedModel, TracedModel
from graftkit.plan import Graft, GraftPlan


class Net(nn.Module):
    """A block with a batch norm behind the first call, and a site called like a method of ModuleDict."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3))
        self.keys = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.keys(torch.relu(self.stem(x)))).mean((2, 3)))


def made(seed: int) -> tuple[Net, TracedModel]:
    torch.manual_seed(seed)
    module = Net()
    with torch.no_grad():
        module.stem[1].running_mean.normal_()
        module.stem[1].running_var.uniform_(0.5, 2)
        module.stem[1].weight.uniform_(0.5, 2)
    return module, tracing.trace_module(module, (torch.randn(2, 2, 5, 5),), name=f"net{seed}")


@pytest.fixture(scope="module")
def net() -> tuple[Net, TracedModel]:
    return made(0)


@pytest.fixture
def model(net: tuple[Net, TracedModel]) -> GraftedModel:
    return surgery.empty(net[1])


INPUTS = torch.randn(4, 2, 5, 5, generator=torch.Generator().manual_seed(9))


def graft(model: GraftedModel, *grafts: Graft, seed: int = 0) -> None:
    surgery.graft(model, grafts, build_dendrite, seed=seed)


def awaken(model: GraftedModel) -> GraftedModel:
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for p in model.dendrites.parameters():
            p.copy_(torch.randn(p.shape, generator=generator))
    return model


def run(model: nn.Module) -> Tensor:
    model.eval()
    with torch.no_grad():
        return model(INPUTS)


def code(model: GraftedModel) -> list[str]:
    return [graph.code for graph in model.graphs]


SITES = ("stem.0", "keys", "head")


def test_an_empty_model_is_the_module(net: tuple[Net, TracedModel], model: GraftedModel) -> None:
    assert torch.equal(run(model), run(net[0]))
    assert model.plan == GraftPlan() and model.parameter_count() == sum(p.numel() for p in net[0].parameters())
    for name, tensor in net[0].state_dict().items():
        assert torch.equal(model.state_dict()[f"base.{name}"], tensor)


def test_graft_and_truncate_leave_no_trace(model: GraftedModel) -> None:
    before, codes, names = run(model), code(model), set(model.state_dict())
    graft(model, *(Graft(site, "full") for site in SITES))
    middle = model.plan
    awaken(model)
    halfway, kept = run(model), model.snapshot()
    assert not torch.allclose(halfway, before)
    graft(model, *(Graft(site, "lowrank") for site in SITES), seed=3)
    assert torch.equal(run(model), halfway)
    assert [len(model.at(site).members()) for site in SITES] == [2, 2, 2]
    surgery.truncate(model, middle)
    assert torch.equal(run(model), halfway) and model.plan == middle
    assert all(torch.equal(tensor, kept[name]) for name, tensor in model.state_dict().items())
    surgery.truncate(model, GraftPlan())
    assert torch.equal(run(model), before) and code(model) == codes and set(model.state_dict()) == names


def test_truncate_refuses_a_plan_that_is_no_beginning(model: GraftedModel) -> None:
    graft(model, Graft("head", "full"), Graft("keys", "full"))
    with pytest.raises(PlanError, match="not a beginning"):
        surgery.truncate(model, GraftPlan((Graft("keys", "full"),)))
    assert len(model.plan.grafts) == 2


def test_put_back_restores_outputs_and_state_bit_for_bit(net: tuple[Net, TracedModel]) -> None:
    model = surgery.empty(net[1])
    given_state = model.snapshot()
    graft(model, Graft("stem.0", "context"), Graft("head", "full", neurons=(1,)))
    awaken(model)
    plan, state, output = model.plan, model.snapshot(), run(model)
    graft(model, Graft("stem.0", "full"), Graft("keys", "pointwise"))
    awaken(model)
    surgery.put_back(model, GraftPlan(), given_state, build_dendrite)
    assert model.plan == GraftPlan()
    surgery.put_back(model, plan, state, build_dendrite)
    assert model.plan == plan and torch.equal(run(model), output)
    assert set(model.state_dict()) == set(state)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_put_back_replaces_what_differs(model: GraftedModel) -> None:
    graft(model, Graft("head", "full"), Graft("keys", "full"))
    awaken(model)
    plan, state, output = model.plan, model.snapshot(), run(model)
    surgery.truncate(model, GraftPlan())
    graft(model, Graft("head", "full"), Graft("keys", "lowrank", join="call"))
    surgery.put_back(model, plan, state, build_dendrite)
    assert torch.equal(run(model), output) and model.plan == plan


def test_fresh_weights_come_from_the_seed_alone(model: GraftedModel, net: tuple[Net, TracedModel]) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    graft(model, Graft("head", "full"), seed=5)
    assert torch.equal(torch.rand(3), expected)
    again, other = surgery.empty(net[1]), surgery.empty(net[1])
    graft(again, Graft("head", "full"), seed=5)
    graft(other, Graft("head", "full"), seed=6)
    weights = [m.at("head").members()[0].state_dict() for m in (model, again, other)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert any(not torch.equal(weights[0][name], weights[2][name]) for name in weights[0])


@pytest.mark.parametrize(
    ("grafts", "words"),
    [
        ([Graft("heat", "full")], r"no site 'heat' in net0\. Did you mean head"),
        ([Graft("head", "full"), Graft("head", "full", join="call")], "'head' must agree in join, detach and mask"),
        ([Graft("head", "full"), Graft("head", "full", detach=True)], "'head' must agree in join, detach and mask"),
        ([Graft("head", "pointwise")], "pointwise dendrites do not fit head"),
        ([Graft("head", "ful")], "unknown dendrite kind 'ful'"),
        ([Graft("keys", "full"), Graft("head", "full", mask="y")], "no input 'y' to use as a mask"),
        ([Graft("keys", "full"), Graft("head", "full", neurons=(2,))], "'head' has neurons 0 to 1"),
        ([Graft("head", "full", neurons=())], "'head' names no neuron"),
        ([Graft("head", "full", neurons=(1, 1))], "'head' names a neuron twice"),
        ([Graft("head", "full", neurons=(-1,))], "'head' has neurons 0 to 1"),
    ],
)
def test_what_does_not_fit_changes_nothing(model: GraftedModel, grafts: list[Graft], words: str) -> None:
    codes = code(model)
    with pytest.raises(PlanError, match=words) as caught:
        graft(model, *grafts)
    assert "\n" not in str(caught.value)
    assert code(model) == codes and model.plan == GraftPlan() and len(model.dendrites) == 0
    graft(model, Graft("head", "full"))
    assert not torch.allclose(run(awaken(model)), run(surgery.empty(model.traced)))


def test_a_later_graft_must_agree_with_what_is_there(model: GraftedModel) -> None:
    graft(model, Graft("stem.0", "full", join="call"))
    with pytest.raises(PlanError, match="must agree"):
        graft(model, Graft("stem.0", "full"))
    assert len(model.plan.grafts) == 1


def by_hand(module: Net, model: GraftedModel, join: str) -> Tensor:
    (dendrite,) = model.at("stem.0").members()
    module.eval()
    call = module.stem[0](INPUTS)
    if join == "call":
        stem = module.stem[1](dendrite.join(call, dendrite(INPUTS, call, [])))
    else:
        normed = module.stem[1](call)
        stem = dendrite.join(normed, dendrite(INPUTS, normed, []))
    return module.head(torch.relu(module.keys(torch.relu(stem))).mean((2, 3)))


@pytest.mark.parametrize("kind", ["full", "context"])
def test_where_dendrites_join(net: tuple[Net, TracedModel], kind: str) -> None:
    outputs = {}
    for join in ("call", "activation"):
        model = surgery.empty(net[1])
        graft(model, Graft("stem.0", kind, join=join))
        awaken(model)
        outputs[join] = run(model)
        with torch.no_grad():
            assert torch.allclose(outputs[join], by_hand(net[0], model, join), atol=1e-5)
    assert not torch.allclose(outputs["call"], outputs["activation"], atol=1e-3)


def test_two_models_in_one_process_do_not_touch(net: tuple[Net, TracedModel]) -> None:
    module, other = made(1)
    alone = run(surgery.empty(other))
    first, second, third = surgery.empty(net[1]), surgery.empty(other), surgery.empty(net[1])
    plain = run(third)
    graft(first, *(Graft(site, "full") for site in SITES))
    awaken(first)
    graft(second, Graft("head", "lowrank"))
    assert torch.equal(run(second), alone) and torch.equal(run(third), plain)
    first.eval()
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    optimizer = torch.optim.SGD(first.dendrites.parameters(), lr=0.1)
    first(INPUTS).sum().backward()
    optimizer.step()
    assert torch.equal(run(second), alone) and torch.equal(run(third), plain)
    assert all(torch.equal(tensor, state[name]) for name, tensor in module.state_dict().items())
    module.zero_grad(set_to_none=True)
    net[0].zero_grad(set_to_none=True)


def test_the_traced_graphs_never_change(net: tuple[Net, TracedModel], model: GraftedModel) -> None:
    codes = [net[1].train_graph.code, net[1].eval_graph.code]
    graft(model, *(Graft(site, "full") for site in SITES))
    assert [net[1].train_graph.code, net[1].eval_graph.code] == codes


def test_a_site_named_like_a_dicts_method_ships(net: tuple[Net, TracedModel], model: GraftedModel) -> None:
    graft(model, Graft("keys", "full"))
    awaken(model)
    proto = api.to_onnx(model)
    assert {"keys.dendrites.0.drive.weight"} <= {tensor.name for tensor in proto.graph.initializer}
    assert api.verify(proto, model.eval())["onnxruntime"] < 1e-5


OPTIONS = [Graft(site, kind) for site in SITES for kind in ("full", "lowrank", "context")]


def costs(model: GraftedModel, grafts: tuple[Graft, ...]) -> int:
    """What grafting really adds."""
    before = model.parameter_count()
    plan = model.plan
    graft(model, *grafts)
    added = model.parameter_count() - before
    surgery.truncate(model, plan)
    return added


@settings(max_examples=60, deadline=None)
@given(grafts=st.lists(st.sampled_from(OPTIONS), max_size=6), room=st.integers(-50, 400))
def test_affordable_keeps_the_limit_and_the_order(net: tuple[Net, TracedModel], grafts: list[Graft], room: int) -> None:
    model = surgery.empty(net[1])
    limit = model.parameter_count() + room
    taken = surgery.affordable(model, grafts, build_dendrite, limit)
    remaining: Iterator[Graft] = iter(grafts)
    assert all(any(one == other for other in remaining) for one in taken)  # in order, each from the list
    added = costs(model, taken)
    assert added <= max(room, 0)
    assert surgery.affordable(model, grafts, build_dendrite, None) == tuple(grafts)
    cheapest = min((costs(model, (one,)) for one in grafts), default=None)
    assert bool(taken) == (cheapest is not None and cheapest <= room)
