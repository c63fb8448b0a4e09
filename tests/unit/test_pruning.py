"""Structured pruning: which widths are found, that what is taken really goes, and how it is put onto a fresh module."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from graftkit.core.errors import PruningError, RunError
from graftkit.pruning import IMPORTANCES, Channels, Shapes, Way, apply, cut, prices, proved, shapes_of, widths, worths


class Residual(nn.Module):
    """Two branches that meet, a grouped and a depthwise convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.deep = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.grouped, self.back = nn.Conv2d(8, 12, 3, padding=1, groups=4), nn.Conv2d(12, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = x + self.back(torch.relu(self.grouped(torch.relu(self.deep(x)))))
        return self.head(x.mean((2, 3)))


class Attention(nn.Module):
    """Separate projections with a number of heads that the module keeps, or one for all three."""

    def __init__(self, *, fused: bool, width: int = 12, heads: int = 3) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, width)
        self.num_heads, self.head_dim, self.fused = heads, width // heads, fused
        if fused:
            self.qkv = nn.Linear(width, 3 * width)
        else:
            self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.out, self.norm, self.head = nn.Linear(width, width), nn.LayerNorm(width), nn.Linear(width, 4)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        rows, length, _ = x.shape
        if self.fused:
            made = self.qkv(x).reshape(rows, length, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
            q, k, v = made.unbind(0)
        else:
            made = (one(x).view(rows, length, self.num_heads, -1) for one in (self.q, self.k, self.v))
            q, k, v = (one.transpose(1, 2) for one in made)
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(rows, length, -1)
        return self.head(self.norm(x + self.out(mixed)).mean(1))


class Tied(nn.Module):
    """An embedding whose weights read the scores, too."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mid, self.head = nn.Embedding(9, 6), nn.Linear(6, 6), nn.Linear(6, 9, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        return self.head(x + self.mid(torch.relu(x)))


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 3))


def seeded(make, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return make().eval()


IDS = torch.arange(14).reshape(2, 7)
IMAGES = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(1))


def cut_to(module: nn.Module, example, share: float, *, importance: str = "magnitude", unit="parameters") -> nn.Module:
    found, _ = widths(module, example)
    small = copy.deepcopy(module)
    outputs = small(example)
    outputs.square().mean().backward()
    counted = prices(small, example, unit)
    worth = worths(Channels(small, example), found, IMPORTANCES.find(importance))
    cut(small, example, found, worth, counted, share * counted.of(small))
    assert counted.of(small) <= share * counted.of(module)
    return small


@pytest.mark.parametrize(
    ("make", "example", "expected"),
    [
        (mlp, torch.randn(4, 6), {"0": 1, "2": 1}),
        (Residual, IMAGES, {"stem": 4, "grouped": 4}),  # what the groups read, and what they make
    ],
)
def test_the_widths_and_what_leaves_at_a_time(make, example, expected) -> None:
    module = seeded(make)
    before = module(example)
    found, kept = widths(module, example)
    assert {width.name: len(width.units[0]) for width in found} == expected
    assert [one.name for one in kept] == [[name for name, _ in module.named_modules()][-1]]
    assert "output" in kept[0].reason
    assert torch.equal(module(example), before)  # nothing was done to it


@pytest.mark.parametrize("fused", [False, True])
def test_heads_leave_whole_or_evenly(fused: bool) -> None:
    module = seeded(lambda: Attention(fused=fused))
    found, _ = widths(module, IDS)
    by_name = {width.name: width for width in found}
    attention = by_name["qkv" if fused else "q"]
    assert len(attention.units) == 3 and len(attention.units[0]) == (12 if fused else 4)  # whole heads
    assert ("num_heads", -1) in {(change.attribute, change.by) for change in attention.changes}
    small = cut_to(module, IDS, 0.6)
    assert small(IDS).shape == (2, 4) and torch.isfinite(small(IDS)).all()


def test_a_head_that_was_zero_is_not_missed() -> None:
    """What is taken is the head whose weights do nothing, and the rest says exactly what it said."""
    module = seeded(lambda: Attention(fused=False))
    with torch.no_grad():
        for layer in (module.q, module.k, module.v):
            layer.weight[4:8] = layer.bias[4:8] = 0
        module.out.weight[:, 4:8] = 0
    found, _ = widths(module, IDS)
    width = next(width for width in found if width.name == "q")
    small = copy.deepcopy(module)
    worth = worths(Channels(small, IDS), (width,), IMPORTANCES.find("magnitude"))
    counted = prices(small, IDS, "parameters")
    cut(small, IDS, (width,), worth, counted, counted.of(small) - 1)
    assert small.num_heads == 2 and small.q.out_features == 8
    torch.testing.assert_close(small(IDS), module(IDS))


@pytest.mark.parametrize("importance", list(IMPORTANCES))
@pytest.mark.parametrize("unit", ["parameters", "macs"])
def test_each_measure_reaches_the_target(importance: str, unit: str) -> None:
    small = cut_to(seeded(Residual), IMAGES, 0.6, importance=importance, unit=unit)
    assert small(IMAGES).shape == (4, 5)


def test_what_still_fits_comes_back() -> None:
    """The last to leave may be dear: a unit of the first layer goes in vain, where one of the second has to go, too."""
    net = seeded(lambda: nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 40)))
    example = torch.randn(2, 4)
    found, _ = widths(net, example)
    worth = {"0": torch.tensor([0.1, 9.0, 9.0, 9.0]), "2": torch.tensor([3.0, 99.0, 99.0])}
    before = copy.deepcopy(net)
    left = cut(net, example, found, worth, prices(net, example, "parameters"), 160.0)  # of 195; 8 and 45 are prices
    assert {width.name: len(width.units) for width in left} == {"0": 4, "2": 2}
    assert torch.equal(net[2].weight, before[2].weight[1:]) and torch.equal(net[0].weight, before[0].weight)
    with pytest.raises(PruningError, match="is the smallest that pruning reaches"):
        cut(net, example, left, {"0": torch.ones(4), "2": torch.ones(2)}, prices(net, example, "parameters"), 20.0)
    assert net[2].weight.shape == (2, 4)  # as it was


def test_a_cut_may_go_by_worth_alone_or_leave_each_layer_alike() -> None:
    """Twelve units that are cheap, and five that are dear; with a share of 0.71 there are nine and four, and 285."""
    net = seeded(lambda: nn.Sequential(nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 40)))
    example = torch.randn(2, 4)
    found, _ = widths(net, example)
    worth = {"0": torch.linspace(1, 2, 12), "2": torch.linspace(3, 4, 5)}  # by worth the first's, by price the second's

    def kept(way: Way, target: float) -> tuple[int, ...]:
        small = copy.deepcopy(net)
        left = cut(small, example, found, worth, prices(small, example, "parameters"), target, way)
        assert prices(small, example, "parameters").of(small) <= target
        return tuple(len(width.units) for width in left)

    assert kept(Way(), 285.0) == (12, 3) and kept(Way(priced=False), 285.0) == (4, 5)
    assert kept(Way(even=True), 285.0) == (9, 4) and kept(Way(even=True), 284.0) == (8, 4)
    assert kept(Way(even=True), 364.0) == (11, 5)
    assert kept(Way(least=0.7), 285.0) == (9, 4)
    with pytest.raises(PruningError, match="303 parameters is the smallest"):
        kept(Way(least=0.9), 285.0)


def test_by_worth_alone_units_come_back_by_worth_too() -> None:
    """Room is left for a unit of the first, worth 2.9 and dear, or for one of the second, worth 2.8 and cheap."""
    layers = (nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 20))
    net = seeded(lambda: nn.Sequential(*layers))
    example = torch.randn(2, 2)
    found, _ = widths(net, example)
    worth = {
        "0": torch.tensor([2.9, 1.3, 7.2, 7.3]),
        "2": torch.tensor([7.7, 2.8, 3.9]),
        "4": torch.tensor([2.3, 5.1, 3.0]),
    }
    left = cut(net, example, found, worth, prices(net, example, "parameters"), 63.0, Way(priced=False))  # of 119
    assert [len(width.units) for width in left] == [3, 2, 1]


@given(
    st.integers(0, 5), st.floats(0.15, 0.95), st.sampled_from(["parameters", "macs"]), st.sampled_from([mlp, Residual])
)
@settings(max_examples=30, deadline=None)
def test_nothing_that_is_worth_something_and_fits_is_left_out(seed: int, share: float, unit: str, make) -> None:
    net, example = seeded(make, seed), torch.randn(2, 6) if make is mlp else torch.randn(2, 3, 6, 6)
    found, _ = widths(net, example)
    counts = prices(net, example, unit)
    worth = {width.name: torch.rand(len(width.units)) + 0.1 for width in found}
    target, before = share * counts.of(net), [tensor.shape for tensor in net.parameters()]
    try:
        left = cut(net, example, found, worth, counts, target)
    except PruningError:  # one unit of each costs more
        assert [tensor.shape for tensor in net.parameters()] == before
        return
    spare = target - counts.of(net)
    assert spare >= 0
    channels = Channels(net, example)
    for width, whole in zip(left, found, strict=True):
        count = sum(map(len, width.units))
        price = counts.channel(channels, channels.group(width.name, range(count)), count) * len(width.units[0])
        all_there, exact = len(width.units) == len(whole.units), make is mlp  # grouped layers' prices are about right
        assert all_there or not exact or price > spare or spare <= 0.01 * target, width.name


def test_first_order_takes_what_the_loss_does_not_see() -> None:
    module = seeded(mlp)
    with torch.no_grad():
        module[2].weight[:, 3] = 0  # nothing reads the fourth of the first layer
        module[0].weight[3] *= 100  # though its weights are large
    x = torch.randn(32, 6)
    module(x).square().mean().backward()
    found, _ = widths(module, x)
    first = found[0]
    worth = worths(Channels(module, x), (first,), IMPORTANCES.find("first-order"))["0"]
    assert int(worth.argmin()) == 3 and float(worth[3]) == 0
    assert int(worths(Channels(module, x), (first,), IMPORTANCES.find("magnitude"))["0"].argmin()) != 3


def test_exactly_what_was_silent_leaves_and_outputs_stay() -> None:
    module = seeded(Residual)
    with torch.no_grad():
        module.back.weight[:, [1, 4, 7, 10]] = 0  # one channel of each group of `grouped`
    small = copy.deepcopy(module)
    found = tuple(width for width in widths(module, IMAGES)[0] if width.name == "grouped")
    small(IMAGES).square().mean().backward()
    worth = worths(Channels(small, IMAGES), found, IMPORTANCES.find("first-order"))
    counted = prices(small, IMAGES, "parameters")
    cut(small, IMAGES, found, worth, counted, counted.of(small) - 1)
    assert small.grouped.out_channels == 8
    torch.testing.assert_close(small(IMAGES), module(IMAGES))


def test_tied_weights_stay_one() -> None:
    module = seeded(Tied)
    small = cut_to(module, IDS % 9, 0.7)
    assert small.head.weight is small.embed.weight and small.head.weight.shape[1] < 6
    assert small(IDS % 9).shape == (2, 7, 9)
    fresh = copy.deepcopy(module)
    apply(fresh, shapes_of(module, small))
    assert fresh.head.weight is fresh.embed.weight


def test_what_cannot_be_reached_says_what_can() -> None:
    module = seeded(mlp)
    with pytest.raises(PruningError, match=r"^\d+ parameters is the smallest that pruning reaches, and 3 were"):
        cut_to(module, torch.randn(4, 6), 3 / sum(p.numel() for p in module.parameters()))


def test_what_is_frozen_keeps_its_width_and_what_feeds_it() -> None:
    module = seeded(mlp)
    module[2].weight.requires_grad_(False)
    found, kept = widths(module, torch.randn(4, 6))
    assert found == () and {one.name for one in kept} == {"0", "2", "4"}
    assert sum("which is frozen" in one.reason for one in kept) == 2
    module[2].weight.requires_grad_(True)
    module[4].bias.requires_grad_(False)  # nothing leaves of it
    assert [width.name for width in widths(module, torch.randn(4, 6))[0]] == ["0", "2"]


def test_numbers_of_numpy_follow_and_come_back() -> None:
    class Depthwise(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            count = np.int64(8)
            self.first, self.deep = nn.Conv1d(2, count, 3), nn.Conv1d(count, count, 3, groups=count)
            self.head = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.relu(self.deep(torch.relu(self.first(x)))).mean(-1))

    module, x = seeded(Depthwise), torch.randn(4, 2, 9)
    small = cut_to(module, x, 0.6).eval()
    assert small.deep.groups == small.deep.in_channels < 8
    shapes = proved(module, small, x)
    assert shapes.numbers["deep"]["groups"] == int(small.deep.groups)


def test_what_shapes_do_not_tell_is_refused() -> None:
    module = seeded(mlp)
    other = copy.deepcopy(module)
    other[1] = nn.Sigmoid()
    with pytest.raises(PruningError, match="cannot be put back from shapes and whole numbers alone"):
        proved(module, other, torch.randn(4, 6))


def test_a_parameter_that_the_loss_does_not_reach_is_worth_nothing_to_any_measure() -> None:
    class Aside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.aside, self.head = nn.Linear(4, 6), nn.Linear(6, 5), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            hidden = torch.relu(self.first(x))
            return self.head(hidden), self.aside(hidden)

    module, x = seeded(Aside), torch.randn(8, 4)
    module(x)[0].square().mean().backward()
    found = widths(module, x)[0]
    for importance in IMPORTANCES.values():
        worth = worths(Channels(module, x), found, importance)
        assert torch.isfinite(worth["first"]).all() and (worth["first"] >= 0).all()


def test_recurrent_layers_are_told() -> None:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru, self.mid, self.head = nn.GRU(4, 5, batch_first=True), nn.Linear(5, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.relu(self.mid(self.gru(x)[0][:, -1])))

    found, kept = widths(seeded(Reader), torch.randn(2, 3, 4))
    assert [width.name for width in found] == ["mid"]
    assert any(one.name == "gru" and "recurrent" in one.reason for one in kept)


@settings(deadline=None, max_examples=15)
@given(
    first=st.integers(2, 9), second=st.integers(2, 9), share=st.floats(0.4, 0.95), seed=st.integers(0, 99),
    importance=st.sampled_from(list(IMPORTANCES)),
)  # fmt: skip
def test_shapes_bring_back_what_was_pruned(first: int, second: int, share: float, seed: int, importance: str) -> None:
    torch.manual_seed(seed)
    module = nn.Sequential(
        nn.Conv1d(2, first, 3), nn.BatchNorm1d(first), nn.ReLU(), nn.Conv1d(first, second, 3), nn.Flatten(),
        nn.Linear(4 * second, 3),
    ).eval()  # fmt: skip
    x = torch.randn(3, 2, 8)
    try:
        small = cut_to(module, x, share, importance=importance).eval()
    except PruningError as error:
        assert "smallest" in str(error)
        return
    shapes = Shapes.from_json(json.loads(json.dumps(shapes_of(module, small).to_json())))
    back = copy.deepcopy(module)
    apply(back, shapes)
    back.load_state_dict(small.state_dict())
    assert torch.equal(back(x), small(x))
    assert back[3].in_channels == small[3].in_channels == small[0].out_channels


@pytest.mark.parametrize(
    "broken",
    [
        {"tensors": {"0.weight": [100, 6]}, "numbers": {}},  # grows
        {"tensors": {"0.weight": [2]}, "numbers": {}},
        {"tensors": {"nowhere": [2, 2]}, "numbers": {}},
        {"tensors": {"0.weight": [0, 6]}, "numbers": {}},
        {"tensors": {}, "numbers": {"0": {"forward": 3}}},
        {"tensors": {}, "numbers": {"0": {"out_features": [3]}}},
        {"tensors": {}, "numbers": {"__class__": {"x": 3}}},
        {"tensors": {}, "numbers": {"0": {"training": 3}}},
        {"tensors": [], "numbers": {}},
        {"tensors": {"0.weight": ["a"]}, "numbers": {}},
        {"numbers": {}},
        7,
    ],
)
def test_shapes_that_do_not_fit_are_refused_whole(broken) -> None:
    module = mlp()
    before = {name: tensor.shape for name, tensor in module.state_dict().items()}
    with pytest.raises(RunError) as error:
        apply(module, Shapes.from_json(broken))
    assert "\n" not in str(error.value)
    assert {name: tensor.shape for name, tensor in module.state_dict().items()} == before
