"""The networks whose files are broken: tiny, so that thousands of cases take minutes."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

from graftkit import api
from graftkit.model import GraftedModel, TracedModel


class Small(nn.Module):
    """A convolution, a batch norm, dropout, a Linear: [N, 1, 6, 6] to [N, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3)
        self.norm = nn.BatchNorm2d(3)
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(3, 3)

    def forward(self, images: Tensor) -> Tensor:
        found = torch.relu(self.norm(self.conv(images)))
        return self.head(self.drop(found.mean((2, 3))))


@cache
def base() -> TracedModel:
    """`Small`, always the same, as what dendrites are loaded onto."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return api.trace(Small(), torch.rand(2, 1, 6, 6))


def grafted() -> GraftedModel:
    """That with dendrites of three kinds."""
    traced = base()
    model = api.graft(traced, api.make_plan(traced, dendrites=("conv=full+lowrank", "linear=adapter")))
    with torch.no_grad():
        for p in model.dendrites.parameters():
            p.fill_(0.25)
    return model


class Choosing(nn.Module):
    """Takes one of two ways, in a loop, with a helper: [N, 4] to [N, 2]."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(2):
            x = self.up(x) if x.sum() > 0 else self.helped(x)
        return self.last(x)

    def helped(self, x: Tensor) -> Tensor:
        return torch.tanh(self.down(x))


class Sizes(nn.Module):
    """Computes with its input's sizes, so that its program has expressions and guards: [N, T, 4] to [N, 2]."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.last = nn.Linear(8, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        pairs = x.reshape(x.shape[0], x.shape[1] // 2, 8)
        return self.last(torch.relu(self.inner(pairs)).mean(1))


def stack() -> nn.Sequential:
    """Made of torch.nn's own classes alone, so that its pickle needs no trust."""
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3))


def small() -> Small:
    """The architecture that weights alone are read for."""
    return Small()
