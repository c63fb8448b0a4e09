"""The training graph is the module in training, or the notes say in what it is not."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from graftkit import api as gk
from graftkit.core.errors import TraceError
from graftkit.tracing.guards import Sizes, breaking


class Net(nn.Module):
    """Two layers, a norm and a dropout, with something in between."""

    def __init__(self, between: Callable[[Net, Tensor], Tensor], dropout: float) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)
        self.between, self.dropout, self.calls, self.average = between, nn.Dropout(dropout), 0, torch.zeros(8)
        self.register_buffer("seen", torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.dropout(self.between(self, self.norm(self.first(x)))))


def _drawn_by_python(net: Net, h: Tensor) -> Tensor:
    return h * random.uniform(0, 2) if net.training else h


def _drawn_by_numpy(net: Net, h: Tensor) -> Tensor:
    return h + torch.from_numpy(np.random.randn(8).astype("float32")) if net.training else h


def _counted(net: Net, h: Tensor) -> Tensor:
    if net.training:
        net.calls += 1
    return h * min(1.0, net.calls / 10)


def _averaged(net: Net, h: Tensor) -> Tensor:
    if net.training:
        net.average = 0.9 * net.average + 0.1 * h.detach().square().mean(0)
    return h - net.average


def _looked_at(net: Net, h: Tensor) -> Tensor:
    net.calls, net.average = net.calls + 1, h.detach()
    return h.relu()


def _in_place(net: Net, h: Tensor) -> Tensor:
    if net.training:
        net.seen.mul_(0.9).add_(h.detach().square().mean(0))
    return h - net.seen


def traced(between: Callable[[Net, Tensor], Tensor], dropout: float = 0.0) -> tuple[Net, tuple[str, ...]]:
    torch.manual_seed(0)
    net = Net(between, dropout)
    return net, gk.trace(net, torch.randn(4, 4)).notes


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize(
    ("between", "words"),
    [
        (_drawn_by_python, "Python or numpy"),
        (_drawn_by_numpy, "Python or numpy"),
        (_counted, "goes by calls"),
        (_averaged, "goes by average"),
    ],
)
def test_what_a_graph_cannot_repeat_is_told(
    between: Callable[[Net, Tensor], Tensor], words: str, dropout: float
) -> None:
    net, notes = traced(between, dropout)
    assert len(notes) == 1 and words in notes[0]
    assert net.calls == 0 and not net.average.any()


@pytest.mark.parametrize("between", [_looked_at, _in_place])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_what_changes_nothing_is_not_told(between: Callable[[Net, Tensor], Tensor], dropout: float) -> None:
    net, notes = traced(between, dropout)
    assert notes == () and not net.seen.any()


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_branch_of_training_on_the_number_of_rows_is_refused(dropout: float) -> None:
    with pytest.raises(TraceError, match=r"in training, gives other outputs .* where batch is 5"):
        traced(lambda net, h: h * 2 if net.training and h.shape[0] % 5 == 0 else h, dropout)


def test_a_norm_over_parts_of_the_batch_is_refused() -> None:
    """An odd number of rows leaves it a part of one row, which the module itself does not take."""

    def ghost(net: Net, h: Tensor) -> Tensor:
        parts = h.chunk(math.ceil(h.shape[0] / 2), 0) if net.training else (h,)
        return torch.cat([net.norm(part) for part in parts])

    with pytest.raises(TraceError, match=r"in training, .* where batch is 16"):
        traced(ghost)


def test_hooks_on_gradients_are_told() -> None:
    net = Net(lambda net, h: h, 0.0)
    net.first.register_full_backward_hook(lambda *given: None)
    assert "hooks on gradients are no part of the graph: first" in gk.trace(net, torch.randn(4, 4)).notes

    def turned(net: Net, h: Tensor) -> Tensor:
        if h.requires_grad:
            h.register_hook(torch.neg)
        return h

    assert any("hooks on gradients" in note for note in traced(turned)[1])


def test_outputs_of_training_alone_are_told() -> None:
    class Auxiliary(Net):
        def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:  # type: ignore[override]
            h = self.first(x)
            return (self.second(h), h) if self.training else self.second(h)

    notes = gk.trace(Auxiliary(lambda net, h: h, 0.0), torch.randn(4, 4)).notes
    assert any("output alone feeds the loss" in note for note in notes)


# ── sizes at which tracing may have lost a branch ────────────────────────────────────────────────


class Image(nn.Module):
    """A convolution and a branch on the image's size."""

    def __init__(self, twice: Callable[[Tensor], bool]) -> None:
        super().__init__()
        self.conv, self.twice = nn.Conv2d(1, 2, 3, padding=1), twice

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).mean((2, 3)) * (2 if self.twice(x) else 1)


@pytest.mark.parametrize(
    "twice",
    [lambda x: x.shape[2] % 11 == 0, lambda x: x.shape[2] * x.shape[3] > 300, lambda x: x.shape[3] == 21],
    ids=["a multiple", "both together", "one number"],
)
def test_a_branch_on_a_size_fixes_it(twice: Callable[[Tensor], bool]) -> None:
    model = gk.trace(Image(twice), torch.randn(2, 1, 12, 12))
    assert model.signature.inputs[0].shape == ("batch", 1, 12, 12)
    assert any("gives other outputs" in note for note in model.notes)


def test_a_branch_on_rows_is_refused_wherever_it_lies() -> None:
    with pytest.raises(TraceError, match="how many rows"):
        gk.trace(Image(lambda x: x.shape[0] % 5 == 0), torch.randn(2, 1, 12, 12))


def test_as_few_sizes_as_break_every_guard() -> None:
    sizes = Sizes({"x": ("batch", 3, "height", "width")}, {"batch": 2, "height": 8, "width": 8})
    guards = [
        "L['x'].size()[2] % 11 != 0",
        "L['x'].size()[1] == 3",
        "L['x'].size()[2]*L['x'].size()[3] <= 4000",
        "oops(",
    ]
    found = breaking(guards, sizes, rows="batch")
    assert found == [{"height": 11}, {"height": 64, "width": 64}]


def test_the_example_stays_as_it_was() -> None:
    class Writes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            x.mul_(0.5).add_(1)
            return self.layer(x)

    rows = torch.randn(3, 4)
    before = rows.clone()
    model = gk.trace(Writes(), rows)
    assert torch.equal(rows, before) and len(model.sites) == 1
