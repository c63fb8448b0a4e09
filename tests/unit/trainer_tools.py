"""Rows, an epoch of two steps, and comparing states, for tests of growth."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from graftkit import training
from graftkit.training import Trainer


def dataset(rows: int = 64, *, seed: int = 1) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(rows, 4, generator=generator)
    return TensorDataset(inputs, (inputs[:, 0] * inputs[:, 1] > 0).long())


def epoch(growing: Trainer, score: float) -> training.Step:
    inputs, targets = dataset().tensors
    for part in (slice(0, 32), slice(32, 64)):
        growing.learn(inputs[part], targets[part])
    return growing.step(score)


def same(state: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return set(state) == set(other) and all(torch.equal(state[name], other[name]) for name in state)
