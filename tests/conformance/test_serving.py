"""Every dendrite kind serves some neurons as it serves all, with fewer numbers and no more arithmetic."""

from __future__ import annotations

import copy
import io
import logging
from collections import Counter

import onnx
import pytest
import torch
from test_dendrites import FITTING, KINDS, TRANSPOSED, assert_equal_everywhere, awaken, graft_at, grafted, rows, run
from torch import Tensor, nn

from graftkit import api, surgery, tracing
from graftkit.contracts import Dendrite
from graftkit.core.sites import Site
from graftkit.dendrites import build_dendrite, make_kind
from graftkit.model import TracedModel
from graftkit.plan import Graft

SERVED = (2, 0)
MOST = (2, 0, 1)  # of most sites that is too many for a branch of their own
PAIRS = [(kind, site) for kind in KINDS for site in FITTING[kind]]


def awake(site: Site, kind: str, index: int) -> Dendrite:
    """A dendrite in mid-life: every parameter has a value of its own."""
    torch.manual_seed(5)
    dendrite = build_dendrite(Graft(site.key, kind), site, index)
    with torch.no_grad():
        for parameter in dendrite.parameters():
            parameter.normal_(0.05, 0.4)
    return dendrite


def joined(dendrite: Dendrite, site: Site, earlier: list[Tensor]) -> tuple[Tensor, Tensor]:
    """(the neurons as they are, the neurons after the dendrite)."""
    torch.manual_seed(6)
    given, neuron = torch.randn(3, *site.input_shape[1:]), torch.randn(3, *site.output_shape[1:])
    with torch.no_grad():
        return neuron, dendrite.join(neuron, dendrite(given, neuron, earlier))


@pytest.mark.parametrize("served", [SERVED, MOST])
@pytest.mark.parametrize("index", [0, 2])
@pytest.mark.parametrize(("kind", "key"), PAIRS)
def test_the_neurons_it_serves_get_what_they_would_get_anyway(
    kind: str, key: str, index: int, served: tuple[int, ...], zoo: TracedModel
) -> None:
    site = zoo.site(key)
    whole = awake(site, kind, index)
    part = copy.deepcopy(whole)
    part.serve(served)
    earlier = [torch.randn(3, *site.output_shape[1:]) for _ in range(index)]
    neuron, expected = joined(whole, site, earlier)
    _, found = joined(part, site, earlier)
    channels = torch.arange(site.out_channels)
    mine = torch.isin(channels, torch.tensor(served))
    swapped = [tensor.movedim(site.channel_dim, 0) for tensor in (neuron, expected, found)]
    torch.testing.assert_close(swapped[2][mine], swapped[1][mine])
    assert torch.equal(swapped[2][~mine], swapped[0][~mine])
    assert torch.equal(part.served() > 0, mine)


@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
@pytest.mark.parametrize(("kind", "key"), PAIRS)
def test_it_tells_later_dendrites_of_no_other_neuron(kind: str, key: str, activation: str, zoo: TracedModel) -> None:
    site = zoo.site(key)
    dendrite = build_dendrite(Graft(key, kind, graft_at(kind, key, activation=activation).options), site, 0)
    dendrite.serve(SERVED)
    with torch.no_grad():
        for parameter in dendrite.parameters():
            parameter.normal_(0.05, 0.4)
        activity = dendrite(torch.randn(3, *site.input_shape[1:]), torch.randn(3, *site.output_shape[1:]), [])
    said = activity.movedim(site.channel_dim, 0).flatten(1).any(1)
    assert said.tolist() == [index in SERVED for index in range(site.out_channels)]


def test_a_served_dendrite_can_be_copied_and_pickled(zoo: TracedModel) -> None:
    for kind, key in PAIRS:
        dendrite, site = awake(zoo.site(key), kind, 1), zoo.site(key)
        dendrite.serve(SERVED)
        buffer = io.BytesIO()
        torch.save(dendrite, buffer)
        buffer.seek(0)
        earlier = [torch.randn(3, *site.output_shape[1:])]
        for other in (copy.deepcopy(dendrite), torch.load(buffer, weights_only=False)):
            assert torch.equal(joined(other, site, earlier)[1], joined(dendrite, site, earlier)[1])


@pytest.mark.parametrize("kind", KINDS)
def test_its_numbers_have_the_same_names_whatever_the_example(kind: str) -> None:
    """Or a plan and its weights could not be put back on a model that was traced at another size."""
    torch.manual_seed(0)
    nets = [nn.Conv2d(8, 16, 3, padding=1), nn.ConvTranspose2d(2, 16, 3, stride=2), nn.Conv1d(6, 6, 3)]
    for net in nets:
        found = []
        for size in (4, 8, 32):
            shape = (2, net.in_channels, *[size] * (len(net.kernel_size)))
            site = tracing.trace_module(nn.Sequential(net), torch.randn(shape), name="net").sites[0]
            if make_kind(kind, {}).refuses(site) is None:
                dendrite = build_dendrite(Graft(site.key, kind), site, 0)
                dendrite.serve((1, 2, 3))
                found.append(list(dendrite.state_dict()))
        assert all(names == found[0] for names in found)


def _numbers(dendrite: Dendrite) -> int:
    return sum(p.numel() for p in dendrite.parameters())


@pytest.mark.parametrize(("kind", "key"), PAIRS)
def test_it_learns_numbers_for_those_alone(kind: str, key: str, zoo: TracedModel) -> None:
    """What a neuron adds is the same for each: the more are served, the more numbers there are."""
    site, sizes = zoo.site(key), []
    for count in (1, 2, 3):
        dendrite = awake(site, kind, 1)
        dendrite.serve(tuple(range(count)))
        sizes.append(_numbers(dendrite))
        assert dendrite.macs <= awake(site, kind, 1).macs
        assert all(p.requires_grad for p in dendrite.parameters())
    own = sizes[1] - sizes[0]
    assert sizes[2] - sizes[1] == own >= 2  # a strength and a cascade weight at least
    grouped = site.is_transposed and site.geometry is not None and site.geometry.groups > 1
    if not (grouped and kind == "full") and not (site.is_transposed and kind == "depthwise"):
        assert _numbers(awake(site, kind, 1)) == sizes[0] + own * (site.out_channels - 1)


def test_every_number_it_has_gets_a_gradient(zoo: TracedModel) -> None:
    for kind, key in PAIRS:
        if key in TRANSPOSED:
            continue
        dendrite, site = awake(zoo.site(key), kind, 0), zoo.site(key)
        dendrite.serve(SERVED)
        given, neuron = torch.randn(8, *site.input_shape[1:]), torch.randn(8, *site.output_shape[1:])
        dendrite.join(neuron, dendrite(given, neuron, [])).square().sum().backward()
        moved = {name: p.grad is not None and bool(p.grad.any()) for name, p in dendrite.named_parameters()}
        assert all(moved.values()), (kind, key, moved)


class Wide(nn.Module):
    """Layers wide enough that a narrow branch is worth its spreading."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(8, 16, 3, padding=1), nn.Linear(32, 24)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.first(x)).flatten(1)[:, :32])


@pytest.fixture(scope="module")
def wide() -> TracedModel:
    torch.manual_seed(0)
    return tracing.trace_module(Wide(), torch.randn(2, 8, 4, 4), name="wide")


def widths(proto: onnx.ModelProto, site: str) -> list[int]:
    """How many outputs each product of a site's dendrites has."""
    sizes = {tensor.name: tuple(tensor.dims) for tensor in proto.graph.initializer}
    nodes = [node for node in proto.graph.node if node.name.startswith(f"{site}/dendrites/")]
    found = [(node.op_type, sizes[node.input[1]]) for node in nodes if node.op_type in ("Conv", "Gemm", "MatMul")]
    return sorted(size[0] if kind == "Conv" else min(size) if len(size) == 2 else size[0] for kind, size in found)


def test_a_narrow_branch_is_narrow_in_the_file(wide: TracedModel) -> None:
    model = awaken(grafted(wide, [Graft("first", "full", neurons=(3, 9, 4)), Graft("last", "full", neurons=(1,))]))
    for key, served in (("first", 3), ("last", 1)):
        site, (dendrite,) = wide.site(key), model.at(key).members()
        rest = site.out_channels * site.positions * (served + 1)  # spread over all, and the strength
        assert dendrite.macs == site.macs * served // site.out_channels + rest
    proto = api.to_onnx(model)
    assert widths(proto, "first") == [3, 16]  # the branch, and what spreads it
    run_file = api.to_onnx(model).SerializeToString()
    assert len(run_file) < len(api.to_onnx(awaken(grafted(wide, [Graft("first", "full")]))).SerializeToString())


def test_where_spreading_costs_more_it_stays_wide(wide: TracedModel) -> None:
    """A low-rank branch mixes two units into each neuron: less than what spreading would take."""
    model = awaken(grafted(wide, [Graft("first", "lowrank", neurons=(3, 9, 4))]))
    (dendrite,) = model.at("first").members()
    assert widths(api.to_onnx(model), "first") == [2, 16]
    site = wide.site("first")
    assert dendrite.macs == site.macs * 2 // 16 + 2 * 16 * site.positions + 16 * site.positions


def test_some_neurons_of_every_kind_fold(zoo: TracedModel, caplog: pytest.LogCaptureFixture) -> None:
    grafts = [
        Graft(site, kind, graft_at(kind, site).options, neurons=served)
        for site in ("dense", "plain", "conv1", "even", "conv3", "tokens")
        for kind, served in (("full", (1,)), ("lowrank", (2, 0)), ("context", (0,)), ("full", (0, 1, 2)))
    ]
    model = awaken(grafted(zoo, grafts))
    assert not torch.allclose(run(model, rows(2), train=False), run(surgery.empty(zoo), rows(2), train=False))
    with caplog.at_level(logging.WARNING):
        proto = api.to_onnx(model)
    assert not caplog.records  # or a user would see them
    assert_equal_everywhere(model, proto)
    readers = Counter(name for node in proto.graph.node for name in node.input)  # sites may share what spreads
    floats = [tensor.name for tensor in proto.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT]
    assert not [name for name in floats if name.startswith(("view", "val_", "transpose")) and readers[name] == 1]
