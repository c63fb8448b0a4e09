"""Plain torch.nn networks that are called in unusual ways: several inputs, nested ones, outputs of all kinds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


def perceptron(inward: int, outward: int, hidden: int = 16) -> nn.Module:
    return nn.Sequential(
        nn.Linear(inward, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outward)
    )


# ── outputs ──────────────────────────────────────────────────────────────────────────────────────


class DictOutput(nn.Module):
    """A dict whose first member is not the one that feeds a loss."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head, self.scale = perceptron(6, 12), nn.Linear(12, 3), nn.Linear(12, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        found = self.body(x)
        return {"features": found, "logits": self.head(torch.relu(found)), "scale": self.scale(found).exp()}


@dataclass
class Answer:
    """What `DataclassOutput` returns."""

    logits: Tensor
    hidden: Tensor | None = None
    attention: Tensor | None = None


class DataclassOutput(nn.Module):
    """A plain dataclass, one of whose fields stays None."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = perceptron(6, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor, with_hidden: bool = True) -> Answer:
        hidden = torch.relu(self.body(x))
        return Answer(self.head(hidden), hidden if with_hidden else None)


class TupleOutput(nn.Module):
    """Nested tuples and None."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.policy, self.value = perceptron(6, 12), nn.Linear(12, 3), nn.Linear(12, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, None], list[Tensor]]:
        found = torch.relu(self.body(x))
        return self.policy(found), (self.value(found), None), [found.mean(1)]


class AuxiliaryHead(nn.Module):
    """Deep supervision: a second output in training, one tensor in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.high = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm, self.early, self.late = nn.BatchNorm2d(8), nn.Linear(8, 5), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        low = torch.relu(self.norm(self.low(x)))
        late = self.late(torch.relu(self.high(low)).mean((2, 3)))
        return (late, self.early(low.mean((2, 3)))) if self.training else late


# ── inputs ───────────────────────────────────────────────────────────────────────────────────────


class KeywordInputs(nn.Module):
    """Keyword-only arguments, one optional that is not given."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.head = nn.Linear(5, 12), nn.Linear(7, 12), nn.Linear(12, 3)

    def forward(self, *, left: Tensor, right: Tensor, weight: Tensor | None = None) -> Tensor:
        found = torch.relu(self.left(left)) * torch.relu(self.right(right))
        return self.head(found if weight is None else found * weight)


class MaskedTokens(nn.Module):
    """Integer tokens and a boolean mask."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.body, self.head = nn.Embedding(64, 12, padding_idx=0), nn.Linear(12, 16), nn.Linear(16, 4)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        found = torch.relu(self.body(self.words(tokens))).masked_fill(~mask.unsqueeze(-1), 0.0)
        return self.head(found.sum(1) / mask.sum(1, keepdim=True))


class NestedInputs(nn.Module):
    """A list of images and a dict of further tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.other, self.head = nn.Conv2d(1, 6, 3), nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, images: Sequence[Tensor], extra: Mapping[str, Tensor]) -> Tensor:
        found = torch.stack([torch.relu(self.conv(image)).mean((2, 3)) for image in images]).mean(0)
        return self.head(torch.relu(found + self.other(extra["facts"]) * extra["weight"]))


class Recommender(nn.Module):
    """Wide and deep: categories through embeddings, numbers through a perceptron, pairwise products."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(size, 8) for size in (10, 20, 30))
        self.numbers, self.deep, self.wide = perceptron(5, 8), perceptron(14, 1), nn.Linear(5, 1)

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        rows = [table(categories[:, i]) for i, table in enumerate(self.tables)]
        stacked = torch.stack([self.numbers(numbers), *rows], 1)
        products = (stacked @ stacked.transpose(1, 2))[:, *torch.tril_indices(4, 4, -1)]
        return self.deep(torch.cat([products, stacked[:, 0]], 1)) + self.wide(numbers)


class Bag(nn.Module):
    """EmbeddingBag over bags of equal size."""

    def __init__(self) -> None:
        super().__init__()
        self.bag, self.body, self.head = nn.EmbeddingBag(64, 12, mode="mean"), nn.Linear(12, 12), nn.Linear(12, 3)

    def forward(self, words: Tensor) -> Tensor:
        return self.head(torch.relu(self.body(self.bag(words))))


class Pairing(nn.Module):
    """nn.Bilinear of two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.pair, self.head = nn.Linear(5, 6), nn.Bilinear(6, 7, 8), nn.Linear(8, 2)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.head(torch.relu(self.pair(torch.relu(self.left(left)), right)))


class Denoiser(nn.Module):
    """A diffusion network's core: an image and a time step through sines, which scale and shift the features."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.middle, self.out = (
            nn.Conv2d(1, 8, 3, padding=1),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.Conv2d(8, 1, 1),
        )
        self.time, self.film = nn.Linear(8, 16), nn.Linear(16, 16)

    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        angles = step.unsqueeze(1).float() * torch.exp(-torch.arange(4.0))
        film = self.film(functional.silu(self.time(torch.cat([angles.sin(), angles.cos()], 1))))
        scale, shift = film[:, :, None, None].chunk(2, 1)
        return self.out(functional.silu(self.middle(functional.silu(self.into(x)) * (1 + scale) + shift)))
