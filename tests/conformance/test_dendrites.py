"""What every dendrite kind in the table promises, at every operator that can be a site."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from math import prod
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from graftkit import api, checking, surgery, tracing
from graftkit.contracts import Dendrite
from graftkit.core.errors import PlanError
from graftkit.core.sites import Site
from graftkit.dendrites import ACTIVATIONS, DENDRITES, build_dendrite, make_kind, options_of, parse_kind
from graftkit.model import GraftedModel, TracedModel
from graftkit.plan import Graft, GraftPlan
from graftkit.rules.points import Points, point_of
from graftkit.runtimes import RUNTIMES

KINDS = tuple(DENDRITES)
ACTIVATIONS_IN_ORDER = tuple(ACTIVATIONS)
LINEAR = ("dense", "tokens", "head")
CONVS = ("conv1", "plain", "strided", "dilated", "grouped", "same", "even", "valid", "conv3")
TRANSPOSED = ("upward", "upward1")
SITES = (*LINEAR, *CONVS, *TRANSPOSED)
FEWER = {"pointwise": CONVS, "depthwise": (*CONVS, *TRANSPOSED), "around": (*CONVS, *TRANSPOSED), "pooled": LINEAR}
FITTING = {kind: FEWER.get(kind, SITES) for kind in KINDS}
TELLING = ("context", "own", "around")  # what they answer with is silent at first


def graft_at(kind: str, site: str, **options: object) -> Graft:
    """Not every kind has an activation to choose."""
    if not hasattr(make_kind(kind, {}), "activation"):
        options.pop("activation", None)
    return Graft(site, kind, options_of(make_kind(kind, options)))


def fits(kind: str, traced: TracedModel, site: str) -> bool:
    return make_kind(kind, {}).refuses(traced.site(site)) is None


def grafted(traced: TracedModel, grafts: Sequence[Graft], *, seed: int = 1) -> GraftedModel:
    model = surgery.empty(traced)
    surgery.graft(model, grafts, build_dendrite, seed=seed)
    return model


def awaken(model: GraftedModel, *, seed: int = 2) -> GraftedModel:
    """Every dendrite parameter gets a value of its own, strengths and cascade weights as well."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.dendrites.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator) + 0.05)
    return model


def rows(size: int, *, seed: int = 3) -> Tensor:
    return torch.randn(size, 192, generator=torch.Generator().manual_seed(seed))


def run(model: GraftedModel, inputs: Tensor, *, train: bool) -> Tensor:
    """The outputs; what batch norms learn on the way is taken back."""
    model.train(train)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with torch.no_grad():
        output = model(inputs)
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
    return output


@pytest.fixture(params=[(k, s) for k in KINDS for s in FITTING[k]], ids=lambda pair: f"{pair[0]}-{pair[1]}")
def pair(request: pytest.FixtureRequest, zoo: TracedModel) -> tuple[str, Site]:
    """A kind, and a site that it does not refuse."""
    kind, site = request.param
    return kind, zoo.site(site)


def test_the_zoo_holds_every_operator(zoo: TracedModel) -> None:
    assert {site.key for site in zoo.sites} == set(SITES)
    operators = {site.operator for site in zoo.sites}
    assert operators == {"linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d"}


@pytest.mark.parametrize("kind", KINDS)
def test_defaults_build_and_the_name_is_the_tables(kind: str) -> None:
    made = make_kind(kind, {})
    assert made.name == kind and made.summary and "\n" not in made.summary
    assert parse_kind(kind) == made
    assert make_kind(kind, dict(options_of(made))) == made


@pytest.mark.parametrize(("kind", "site"), [*product(KINDS, SITES)])
def test_it_fits_or_refuses_with_a_reason(zoo: TracedModel, kind: str, site: str) -> None:
    one = graft_at(kind, site)
    reason = make_kind(kind, {}).refuses(zoo.site(site))
    assert (reason is None) == (site in FITTING[kind])
    if reason is not None:
        assert reason.strip() and "\n" not in reason
        with pytest.raises(PlanError, match=re.escape(f"{kind} dendrites do not fit {site}: {reason}")):
            build_dendrite(one, zoo.site(site), 0)


def test_the_plan_round_trips_through_json(pair: tuple[str, Site]) -> None:
    kind, site = pair
    plan = GraftPlan((graft_at(kind, site.key), Graft(site.key, kind, neurons=(0, 2), detach=True, join="call")))
    text = json.dumps(plan.to_json())
    again = GraftPlan.from_json(json.loads(text))
    assert again == plan and hash(again) == hash(plan)
    assert json.dumps(again.to_json()) == text


def test_parameters_and_shapes(pair: tuple[str, Site], zoo: TracedModel) -> None:
    """`index` earlier dendrites are read with one weight a neuron each, and strengths start at zero."""
    kind, site = pair
    sizes = []
    neuron = torch.randn(3, *(s for s in site.output_shape[1:]))
    given = torch.randn(3, *site.input_shape[1:])
    for index in range(3):
        dendrite = build_dendrite(graft_at(kind, site.key), site, index)
        sizes.append(sum(p.numel() for p in dendrite.parameters()))
        assert all(not p.any() for p in dendrite.strengths())
        assert {id(p) for p in dendrite.strengths()} <= {id(p) for p in dendrite.parameters()}
        earlier = [torch.randn_like(neuron) for _ in range(index)]
        activity = dendrite(given, neuron, earlier)
        assert torch.broadcast_shapes(activity.shape, neuron.shape) == neuron.shape
        assert dendrite.join(neuron, activity).shape == neuron.shape
        assert torch.equal(dendrite.join(neuron, activity), neuron)
        assert dendrite.served().shape == (site.out_channels,)
    assert sizes[1] - sizes[0] == sizes[2] - sizes[1] == site.out_channels


def test_the_error_at_its_activity_is_what_it_says(pair: tuple[str, Site]) -> None:
    """`felt` is the gradient at the activity, but for one factor a neuron."""
    kind, site = pair
    given, neuron, error = (
        torch.randn(3, *shape[1:]) for shape in (site.input_shape, site.output_shape, site.output_shape)
    )
    dendrite = build_dendrite(graft_at(kind, site.key), site, 0)
    with torch.no_grad():
        for parameter in dendrite.parameters():
            parameter.normal_()
    activity = dendrite.activity(dendrite.reads(given, neuron), [])
    assert torch.equal(activity, dendrite(given, neuron, []))
    activity = activity.expand_as(neuron).detach().requires_grad_()
    (gradient,) = torch.autograd.grad((dendrite.join(neuron, activity) * error).sum(), activity)
    felt = dendrite.felt(neuron, error)
    assert felt.shape == neuron.shape
    factors = (gradient / felt).movedim(site.channel_dim, 0).flatten(1)
    torch.testing.assert_close(factors, factors[:, :1].expand_as(factors), rtol=1e-3, atol=1e-4)


def test_one_that_is_local_says_at_one_position_what_it_says_there_among_all(pair: tuple[str, Site]) -> None:
    kind, site = pair
    point = point_of(site)
    whole = build_dendrite(graft_at(kind, site.key), site, 1)
    if point is None or not whole.local:
        assert site.is_transposed or kind in TELLING or site.positions == 1
        return
    with torch.no_grad():
        for parameter in whole.parameters():
            parameter.normal_()
    alone = build_dendrite(graft_at(kind, site.key), point, 1)
    alone.load_state_dict(whole.state_dict())
    given, neuron, before = (
        torch.randn(3, *shape[1:]) for shape in (site.input_shape, site.output_shape, site.output_shape)
    )
    sizes = tuple(size for d, size in enumerate(neuron.shape) if d not in (site.batch_dim, site.channel_dim))
    points = Points.draw(site, sizes, 5, torch.Generator().manual_seed(0))
    expected = points.values(whole(given, neuron, [before]))
    found = alone(points.inputs(given), points.values(neuron), [points.values(before)])
    assert expected.shape[0] == 3 * min(5, prod(sizes))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_zero_strength_leaves_outputs_bit_equal(pair: tuple[str, Site], zoo: TracedModel) -> None:
    kind, site = pair
    inputs, model = rows(5), surgery.empty(zoo)
    expected = {train: run(surgery.empty(zoo), inputs, train=train) for train in (False, True)}
    for count in (1, 2, 3):
        surgery.graft(model, [graft_at(kind, site.key)], build_dendrite, seed=count)
        assert len(model.at(site.key).members()) == count
        for train, given in expected.items():
            assert torch.equal(run(model, inputs, train=train), given)
    kept = awaken(model).silence(site.key)
    assert torch.equal(run(model, inputs, train=False), expected[False])
    model.unsilence(site.key, kept)
    assert not torch.allclose(run(model, inputs, train=False), expected[False], atol=1e-4)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_dendrite_parameter_gets_a_gradient(pair: tuple[str, Site], zoo: TracedModel, activation: str) -> None:
    kind, site = pair
    model = grafted(zoo, [graft_at(kind, site.key, activation=activation)] * 3).eval()
    model.zero_grad()
    for seed in range(4):  # a rectifier may be shut for all rows under one set of weights
        awaken(model, seed=seed)(rows(8)).square().sum().backward()
    for name, parameter in model.dendrites.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, f"no gradient reaches {name}"
    model.zero_grad(set_to_none=True)


def test_activations_differ(pair: tuple[str, Site], zoo: TracedModel) -> None:
    kind, site = pair
    if not hasattr(make_kind(kind, {}), "activation"):
        assert kind in ("own", "around")
        return
    outputs = []
    for activation in ACTIVATIONS:
        model = awaken(grafted(zoo, [graft_at(kind, site.key, activation=activation)]))
        outputs.append(run(model, rows(3), train=False))
    alike = [(ACTIVATIONS_IN_ORDER[j], ACTIVATIONS_IN_ORDER[i])
             for i, a in enumerate(outputs) for j, b in enumerate(outputs[:i]) if torch.allclose(a, b)]  # fmt: skip
    # what the output layer reads was rectified, and so are its means
    assert alike == [] or ((kind, site.key) == ("pooled", "head") and set(*alike) == {"relu", "linear"})


def test_serve_silences_all_other_neurons(pair: tuple[str, Site], zoo: TracedModel) -> None:
    kind, site = pair
    model = awaken(grafted(zoo, [Graft(site.key, kind, neurons=(0, 2))]))
    (dendrite,) = model.at(site.key).members()
    served = dendrite.served()
    assert (served > 0).tolist() == [index in (0, 2) for index in range(site.out_channels)]
    given, neuron = torch.randn(3, *site.input_shape[1:]), torch.randn(3, *site.output_shape[1:])
    with torch.no_grad():
        joined = dendrite.join(neuron, dendrite(given, neuron, []))
    changed = (joined != neuron).movedim(site.channel_dim, 0).flatten(1).any(1)
    assert changed.tolist() == [index in (0, 2) for index in range(site.out_channels)]


def test_served_neurons_survive_a_state_dict(zoo: TracedModel) -> None:
    plan = GraftPlan(tuple(Graft(site, "lowrank", neurons=(1,)) for site in ("dense", "plain")))
    model = awaken(grafted(zoo, plan.grafts))
    other = surgery.empty(zoo)
    surgery.put_back(other, plan, model.snapshot(), build_dendrite)
    assert torch.equal(run(other, rows(3), train=False), run(model, rows(3), train=False))


# ── what it costs ────────────────────────────────────────────────────────────────────────────────


def hand_count(kind: str, site: Site, index: int) -> int:
    """Multiply-adds counted from the shapes, one loop at a time."""
    channels, values = site.out_channels, prod(site.output_shape[1:])
    read = prod(site.input_shape[1:])
    if kind == "context":  # 4 units: read, answer, and one product for each value that is gated or told of earlier ones
        return channels * 4 + 4 * channels + (1 + index) * values
    if kind == "own":  # two products a neuron, or one where there is one position
        return (2 if values > channels else 1) * channels + (1 + index) * values
    if kind == "around":
        return values * 3 ** len(site.output_shape[2:]) + (1 + index) * values
    taps = prod(site.geometry.kernel) if site.geometry else 1
    per_output = taps * site.in_channels // (site.geometry.groups if site.geometry else 1)
    positions = values // channels
    after = (1 + index) * values  # strength, or gain, and cascade weights
    if kind == "pooled":
        groups = max(n for n in range(1, 17) if site.in_channels % n == 0)
        return read + groups * values + after
    if kind == "adapter" and not site.is_transposed:
        return taps * site.in_channels * 2 * positions + 2 * values + after
    if site.is_transposed:
        groups = site.geometry.groups  # type: ignore[union-attr]
        common = int(np.gcd(site.in_channels, channels))
        each = {"full": channels // groups, "depthwise": channels // common, "lowrank": 2, "adapter": 2}[kind]
        return read * taps * each + (2 * values if kind in ("lowrank", "adapter") else 0) + after
    if kind == "full":
        return per_output * values + after
    if kind == "pointwise":
        return per_output // taps * values + after
    if kind == "depthwise":
        return taps * site.in_channels // int(np.gcd(site.in_channels, channels)) * values + after
    assert kind == "lowrank"
    return taps * site.in_channels * 2 * positions + 2 * values + after


def test_macs_equal_a_hand_count(pair: tuple[str, Site], zoo: TracedModel) -> None:
    kind, site = pair
    for index in range(3):
        dendrite = build_dendrite(graft_at(kind, site.key), site, index)
        assert dendrite.macs == hand_count(kind, site, index)


def test_the_models_macs_and_parameters_add_up(zoo: TracedModel) -> None:
    model = grafted(zoo, [graft_at("full", "plain"), graft_at("context", "plain"), graft_at("lowrank", "dense")])
    plain = surgery.empty(zoo)
    dendrites: list[Dendrite] = [*model.at("plain").members(), *model.at("dense").members()]
    assert model.macs() - plain.macs() == sum(dendrite.macs for dendrite in dendrites)
    extra = sum(p.numel() for dendrite in dendrites for p in dendrite.parameters())
    assert model.parameter_count() - plain.parameter_count() == extra
    # full: 6x4x3x3 + 6, strength 6; context: 6x4 + 4 + 4x6 + 6, cascade 6; lowrank: 192x2 + 2 + 2x6, strength 6
    assert extra == (216 + 6 + 6) + (24 + 4 + 24 + 6 + 6) + (384 + 2 + 12 + 6)


# ── errors that do or do not flow through ────────────────────────────────────────────────────────


class Chain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.third = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.third(torch.relu(self.second(torch.relu(self.first(x)))).mean((2, 3)))


@pytest.fixture(scope="module")
def chain() -> TracedModel:
    torch.manual_seed(5)
    return tracing.trace_module(Chain(), (torch.randn(2, 2, 5, 5),), name="chain")


def earlier_gradient(traced: TracedModel, kind: str, *, detach: bool) -> tuple[Tensor, Tensor]:
    """Gradients of (the first layer's weight, the second layer's) with dendrites at the second."""
    model = awaken(grafted(traced, [Graft("second", kind, detach=detach)] * 2)).eval()
    inputs = torch.randn(4, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    weights = [model.get_parameter(f"base.{name}.weight") for name in ("first", "second")]
    first, second = torch.autograd.grad(model(inputs).square().sum(), weights)
    return first, second


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "plain" in FITTING[kind]])
def test_detach_keeps_errors_from_earlier_layers(chain: TracedModel, kind: str) -> None:
    with_flow, _ = earlier_gradient(chain, kind, detach=False)
    without, own = earlier_gradient(chain, kind, detach=True)
    assert not torch.allclose(with_flow, without)
    # by hand: the dendrites' activities as constants
    model = awaken(grafted(chain, [Graft("second", kind)] * 2)).eval()
    inputs = torch.randn(4, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    first, second, third = (model.base.get_submodule(name) for name in ("first", "second", "third"))
    hidden = torch.relu(functional.conv2d(inputs, first.weight, first.bias, padding=1))
    neuron = functional.conv2d(hidden, second.weight, second.bias, padding=1)
    seen, said, activities = hidden.detach(), neuron.detach(), []
    for dendrite in model.at("second").members():
        activities.append(dendrite(seen, said, list(activities)))
        neuron = dendrite.join(neuron, activities[-1])
    output = functional.linear(torch.relu(neuron).mean((2, 3)), third.weight, third.bias)
    by_hand = torch.autograd.grad(output.square().sum(), [first.weight, second.weight])
    assert torch.allclose(without, by_hand[0], atol=1e-5) and torch.allclose(own, by_hand[1], atol=1e-5)


# ── what single kinds compute ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("site", CONVS)
def test_pointwise_is_the_centre_tap_of_a_full_kernel(zoo: TracedModel, site: str) -> None:
    place = zoo.site(site)
    pointwise = build_dendrite(graft_at("pointwise", site), place, 0)
    full = build_dendrite(graft_at("full", site), place, 0)
    tap, drive = pointwise.drive.tap, full.drive  # type: ignore[union-attr]
    assert place.geometry is not None
    centre = tuple(k // 2 for k in place.geometry.kernel)
    with torch.no_grad():
        drive.weight.zero_()
        drive.weight[(slice(None), slice(None), *centre)] = tap.weight.flatten(2)[..., 0]
        drive.bias.copy_(tap.bias)
        given, neuron = torch.randn(3, *place.input_shape[1:]), torch.randn(3, *place.output_shape[1:])
        assert torch.allclose(pointwise(given, neuron, []), full(given, neuron, []), atol=1e-6)


def test_cascade_weights_read_earlier_activities(zoo: TracedModel) -> None:
    site = zoo.site("plain")
    second = build_dendrite(graft_at("full", "plain"), site, 1)
    given, neuron = torch.randn(2, *site.input_shape[1:]), torch.randn(2, *site.output_shape[1:])
    earlier = torch.randn_like(neuron)
    with torch.no_grad():
        second.earlier[0].copy_(torch.arange(6.0).reshape(6, 1, 1))  # type: ignore[index]
        second.strength.fill_(0.5)  # type: ignore[union-attr]
        drive = second.drive(given)  # type: ignore[operator]
        activity = second(given, neuron, [earlier])
        assert torch.allclose(activity, torch.tanh(drive + torch.arange(6.0).reshape(1, 6, 1, 1) * earlier))
        assert torch.allclose(second.join(neuron, activity), neuron + 0.5 * activity)


def context_by_hand(neuron: np.ndarray, dendrite: Dendrite, mask: np.ndarray | None, *, gate: bool) -> np.ndarray:
    """[batch, length, features] with loops and the published formula."""
    read, answer = dendrite.read, dendrite.answer  # type: ignore[union-attr]
    d_weight, d_bias, b_weight, b_bias = (
        p.detach().double().numpy() for p in (read.weight, read.bias, answer.weight, answer.bias)
    )
    out = np.empty_like(neuron)
    for row in range(len(neuron)):
        keep = np.ones(neuron.shape[1], bool) if mask is None else mask[row].astype(bool)
        mean = np.maximum(neuron[row][keep], 0).sum(0) / max(keep.sum(), 1)
        told = b_weight @ np.tanh(d_weight @ mean + d_bias) + b_bias
        out[row] = neuron[row] * (1 + np.tanh(told)) if gate else neuron[row] + told
    return out


@pytest.mark.parametrize("mode", ["gate", "add"])
@pytest.mark.parametrize("masked", [False, True])
def test_context_is_the_formula(zoo: TracedModel, mode: str, masked: bool) -> None:
    site = zoo.site("tokens")
    dendrite = build_dendrite(graft_at("context", "tokens", mode=mode, units=3), site, 0).double()
    with torch.no_grad():
        for parameter in dendrite.parameters():
            parameter.normal_()
    neuron = torch.randn(3, 12, 6, dtype=torch.float64)
    mask = torch.arange(12) < torch.tensor([[12], [5], [0]]) if masked else None
    with torch.no_grad():
        joined = dendrite.join(neuron, dendrite(torch.randn(3, 12, 16), neuron, [], mask))
    by_hand = context_by_hand(neuron.numpy(), dendrite, None if mask is None else mask.numpy(), gate=mode == "gate")
    np.testing.assert_allclose(joined.numpy(), by_hand, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("key", "masked"), [("plain", False), ("conv1", False), ("conv3", False), ("tokens", False), ("tokens", True)]
)
def test_own_is_the_formula(zoo: TracedModel, key: str, masked: bool) -> None:
    site = zoo.site(key)
    dendrite = build_dendrite(graft_at("own", key), site, 0).double()
    weight, bias = torch.randn(site.out_channels, 2).double(), torch.randn(site.out_channels).double()
    with torch.no_grad():
        for parameter, value in zip(dendrite.strengths(), (weight, bias), strict=True):
            parameter.copy_(value)
        neuron = torch.randn(3, *site.output_shape[1:], dtype=torch.float64)
        mask = torch.arange(12) < torch.tensor([[12], [5], [1]]) if masked else None
        joined = dendrite.join(neuron, dendrite(torch.empty(0), neuron, [], mask))
    for row, channel in product(range(3), range(site.out_channels)):
        there, found = (tensor.movedim(site.channel_dim, 1)[row, channel].numpy() for tensor in (neuron, joined))
        counted = there if mask is None else there[mask[row].numpy()]
        heard = torch.tensor([np.maximum(counted, 0).mean(), np.abs(counted - counted.mean()).mean()])
        told = float(weight[channel] @ heard + bias[channel])
        np.testing.assert_allclose(found, there * (1 + np.tanh(told)), rtol=1e-9)


def test_own_is_silent_in_half_precision_too(zoo: TracedModel) -> None:
    site = zoo.site("plain")
    dendrite = build_dendrite(graft_at("own", "plain"), site, 0).half()
    neuron = 3000 * torch.randn(2, *site.output_shape[1:]).half()
    assert torch.equal(dendrite.join(neuron, dendrite(torch.empty(0), neuron, [])), neuron)


@pytest.mark.parametrize("apart", [1, 3])
def test_around_is_the_formula(zoo: TracedModel, apart: int) -> None:
    """In loops over one map, whose surroundings are zeros."""
    site = zoo.site("plain")
    dendrite = build_dendrite(graft_at("around", "plain", dilation=apart), site, 0).double()
    with torch.no_grad():
        for parameter in dendrite.parameters():
            parameter.normal_()
        neuron = torch.randn(2, *site.output_shape[1:], dtype=torch.float64)
        joined = dendrite.join(neuron, dendrite(torch.empty(0), neuron, []))
    weight, bias = (p.detach().numpy() for p in dendrite.strengths())
    height, width = site.output_shape[2:]
    for channel, up, left in product(range(site.out_channels), range(height), range(width)):
        told = bias[channel]
        for i, j in product(range(3), repeat=2):
            y, x = up + apart * (i - 1), left + apart * (j - 1)
            if 0 <= y < height and 0 <= x < width:
                told += weight[channel, 0, i, j] * max(0.0, float(neuron[1, channel, y, x]))
        expected = float(neuron[1, channel, up, left]) * (1 + np.tanh(told))
        assert float(joined[1, channel, up, left]) == pytest.approx(expected, abs=1e-9)


class Sideways(nn.Module):
    """Rows and moments changed places, in front of a convolution that sees one of both."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(4, 8, 1), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:  # [N, 5, 4]
        told = torch.relu(self.conv(x.permute(2, 0, 1).unsqueeze(0)))  # [1, 8, N, 5]
        return self.head(told.mean(3).squeeze(0).transpose(0, 1))


@pytest.mark.parametrize("kind", TELLING)
def test_rows_among_the_positions_are_refused(kind: str) -> None:
    traced = tracing.trace_module(Sideways(), (torch.randn(3, 5, 4),), name="sideways")
    reason = make_kind(kind, {}).refuses(traced.site("conv"))
    assert reason is not None and "rows" in reason


def test_one_position_has_no_surroundings_and_no_spread() -> None:
    """A map that is always 1x1; of one that may be larger nobody knows."""
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 6, 1), nn.ReLU(), nn.Flatten(), nn.Linear(6, 2))
    site = tracing.trace_module(net, (torch.randn(2, 4, 5, 5),), name="squeezed").site("1")
    assert "nothing around it" in str(make_kind("around", {}).refuses(site))
    own = build_dendrite(graft_at("own", "1"), site, 0)
    assert sum(p.numel() for p in own.parameters()) == 12
    own.wake()
    neuron = torch.randn(2, 6, 1, 1)
    weight, bias = own.strengths()
    told = torch.relu(neuron) * weight.reshape(6, 1, 1) + bias.reshape(6, 1, 1)
    torch.testing.assert_close(own.join(neuron, own(torch.empty(0), neuron, [])), neuron * (1 + torch.tanh(told)))


def test_own_learns_where_a_map_is_all_the_same(zoo: TracedModel) -> None:
    """The slope of a spread of zero is finite: a neuron may say the same everywhere."""
    site = zoo.site("plain")
    dendrite = build_dendrite(graft_at("own", "plain"), site, 0)
    dendrite.wake()
    neuron = torch.ones(2, *site.output_shape[1:]).requires_grad_()
    dendrite.join(neuron, dendrite(torch.empty(0), neuron, [])).sum().backward()
    assert neuron.grad is not None and torch.isfinite(neuron.grad).all()


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 8)
        self.mix = nn.Linear(8, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        hidden = torch.relu(self.mix(self.table(tokens)))
        counted = mask.unsqueeze(-1).to(hidden.dtype)
        return self.head((hidden * counted).sum(1) / counted.sum(1).clamp(min=1))


@pytest.fixture(scope="module")
def tagger() -> TracedModel:
    torch.manual_seed(7)
    return tracing.trace_module(
        Tagger(), (torch.randint(0, 20, (3, 5)), torch.ones(3, 5, dtype=torch.bool)), name="tagger"
    )


def test_a_masked_context_ignores_padding(tagger: TracedModel) -> None:
    tokens = torch.randint(0, 20, (2, 5))
    mask = torch.tensor([[True, True, True, False, False], [True, True, True, True, True]])
    other = torch.where(mask, tokens, (tokens + 7) % 20)
    with_mask = awaken(grafted(tagger, [Graft("mix", "context", mask="mask")])).eval()
    without = awaken(grafted(tagger, [Graft("mix", "context")])).eval()
    with torch.no_grad():
        assert torch.allclose(with_mask(tokens, mask), with_mask(other, mask), atol=1e-6)
        assert not torch.allclose(without(tokens, mask), without(other, mask), atol=1e-5)


def test_an_unknown_mask_is_refused_and_changes_nothing(tagger: TracedModel) -> None:
    model = surgery.empty(tagger)
    inputs = tuple(tensor.clone() for tensor in tagger.inputs)
    with pytest.raises(PlanError, match=r"no input 'maks' to use as a mask\. Did you mean mask"):
        surgery.graft(model, [Graft("mix", "context", mask="maks")], build_dendrite, seed=0)
    assert model.plan == GraftPlan() and not model.dendrites
    surgery.graft(model, [Graft("mix", "context", mask="mask")], build_dendrite, seed=0)
    assert not torch.equal(awaken(model).eval()(*inputs), surgery.empty(tagger).eval()(*inputs))


# ── folded ONNX equals grafted ───────────────────────────────────────────────────────────────────


# Of the others, `make runtimes` and docs/runtimes.md tell.
IN_PROCESS = ("onnxruntime", "reference", "openvino", "tract")


def assert_equal_everywhere(model: GraftedModel, proto: onnx.ModelProto) -> None:
    model.eval()
    content = proto.SerializeToString()
    for name in IN_PROCESS:
        run_file, names = RUNTIMES[name].open(content, threads=1), model.traced.signature.input_names
        worst = checking.compare(run_file, lambda batch: model.outputs(*batch), names, [(rows(n),) for n in (1, 2, 7)])
        assert worst < 1e-5, f"{name}: {worst}"


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_folded_equals_grafted_in_every_runtime(zoo: TracedModel, kind: str, count: int) -> None:
    """All operators at once, each with a cascade; a site is checked by itself in what the error names."""
    activations = ("relu", "gelu")[:count]
    grafts = [
        graft_at(kind, site, activation=activation)
        for activation in activations
        for site in FITTING[kind]
        if kind != "depthwise" or site not in TRANSPOSED  # below
    ]
    model = awaken(grafted(zoo, grafts))
    for dendrite in (d for key in model.plan.sites() for d in model.at(key).members()):
        if kind not in TELLING:
            with torch.no_grad():
                dendrite.strengths()[0].abs_()  # what may fold behind a rectifier
    proto = api.to_onnx(model)
    expected = run(model, rows(2), train=False)
    assert not torch.allclose(expected, run(surgery.empty(zoo), rows(2), train=False), atol=1e-3)
    assert_equal_everywhere(model, proto)


def test_a_cascade_of_all_kinds_at_both_joins(zoo: TracedModel) -> None:
    mixed = [
        graft_at(kind, site)
        for site in ("plain", "grouped", "even")
        for kind in ("context", "full", "own", "pointwise", "context", "lowrank", "around", "depthwise")
    ]
    call = [
        Graft(site, kind, (("activation", "sigmoid"),), join="call")
        for site in ("tokens", "upward")
        for kind in ("full", "lowrank")
    ]
    some = [Graft("conv3", "full", neurons=(0, 3)), Graft("dense", "context", (("mode", "add"),), neurons=(1,))]
    model = awaken(grafted(zoo, [*mixed, *call, *some]))
    assert_equal_everywhere(model, api.to_onnx(model))


class Upward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.grouped = nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2)
        self.narrow = nn.ConvTranspose2d(6, 4, (2, 3), dilation=(1, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.narrow(torch.relu(self.grouped(x))).mean((2, 3))


def test_grouped_transposed_convolutions_fold() -> None:
    """In onnxruntime alone: onnx's reference evaluator cannot compute them, with or without dendrites."""
    torch.manual_seed(4)
    traced = tracing.trace_module(Upward(), (torch.randn(2, 4, 3, 3),), name="upward")
    kinds = ("full", "depthwise", "lowrank", "context", "own", "around")
    model = awaken(grafted(traced, [graft_at(kind, site) for site in ("grouped", "narrow") for kind in kinds])).eval()
    run_file = RUNTIMES["onnxruntime"].open(api.to_onnx(model).SerializeToString(), threads=1)
    batches = [(torch.randn(size, 4, 3, 3),) for size in (1, 2, 7)]
    names = model.traced.signature.input_names
    assert checking.compare(run_file, lambda batch: model.outputs(*batch), names, batches) < 1e-5


@pytest.mark.parametrize(
    "text", ["full:activation=softmax", "lowrank:rank=0", "context:units=5", "context:mode=mul", "around:dilation=0"]
)
def test_options_out_of_range_are_refused(text: str) -> None:
    with pytest.raises(PlanError):
        parse_kind(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ful", "unknown dendrite kind 'ful'; there are full"),
        ("context:unit=2", "has no option 'unit'.*Did you mean units"),
        ("context:units", "write options as name=value"),
        ("context:units=two", "units must be a whole number, not 'two'"),
    ],
)
def test_text_that_is_no_kind_is_refused_in_one_line(text: str, words: str) -> None:
    with pytest.raises(PlanError, match=words) as caught:
        parse_kind(text)
    assert "\n" not in str(caught.value)


def test_text_gives_options() -> None:
    assert parse_kind("context: units=2 ,mode=add") == make_kind("context", {"units": 2, "mode": "add"})
    assert parse_kind("lowrank:rank=3") == make_kind("lowrank", {"rank": 3})


def test_it_comes_back_from_a_file_of_its_own_to_the_bit(
    pair: tuple[str, Site], zoo: TracedModel, tmp_path: Path
) -> None:
    kind, site = pair
    grafts = (graft_at(kind, site.key), replace(graft_at(kind, site.key), neurons=(0, 2)))
    model = awaken(grafted(zoo, grafts))
    again = api.load_dendrites(zoo, api.save_dendrites(model, tmp_path / "alone.safetensors"))
    assert again.plan == model.plan
    for train in (False, True):
        assert torch.equal(run(again, rows(3), train=train), run(model, rows(3), train=train))
