"""The small nets of the benchmarks, in plain torch, and what moves a batch of inputs at random."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Widths = tuple[int, ...]
Moves = Callable[[Tensor], Tensor]


def digits_cnn(widths: Widths) -> nn.Module:
    """[N, 1, 8, 8]: two convolutions with batch norm, 2x2 averages, one Linear."""
    first, second = widths
    return nn.Sequential(
        nn.Conv2d(1, first, 3, padding=1, bias=False), nn.BatchNorm2d(first), nn.ReLU(),
        nn.Conv2d(first, second, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(second), nn.ReLU(),
        nn.AvgPool2d(2), nn.Flatten(), nn.Linear(4 * second, 10),
    )  # fmt: skip


def digits_mlp(widths: Widths) -> nn.Module:
    """[N, 1, 8, 8]: two hidden Linear layers and the output."""
    first, second = widths
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, first), nn.ReLU(), nn.Linear(first, second), nn.ReLU(), nn.Linear(second, 10)
    )


def speech_cnn(widths: Widths) -> nn.Module:
    """[N, 16, 49] bands and frames: two convolutions over time, each with a pool, one Linear."""
    first, second = widths
    return nn.Sequential(
        nn.Conv1d(16, first, 3, padding=1), nn.ReLU(), nn.MaxPool1d(2),
        nn.Conv1d(first, second, 3, padding=1), nn.ReLU(), nn.MaxPool1d(2),
        nn.Flatten(), nn.Linear(12 * second, 10),
    )  # fmt: skip


def speech_norm_cnn(widths: Widths) -> nn.Module:
    """`speech_cnn` with a batch norm behind each convolution."""
    first, second = widths
    return nn.Sequential(
        nn.Conv1d(16, first, 3, padding=1, bias=False), nn.BatchNorm1d(first), nn.ReLU(), nn.MaxPool1d(2),
        nn.Conv1d(first, second, 3, padding=1, bias=False), nn.BatchNorm1d(second), nn.ReLU(), nn.MaxPool1d(2),
        nn.Flatten(), nn.Linear(12 * second, 10),
    )  # fmt: skip


def image_cnn(widths: Widths, channels: int = 3) -> nn.Module:
    """[N, C, H, W]: three convolutions with batch norm, global averages, one Linear."""
    layers: list[nn.Module] = []
    before = channels
    for index, width in enumerate(widths):
        layers += [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if index < len(widths) - 1 else []
        before = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 10))


def grey_cnn(widths: Widths) -> nn.Module:
    """`image_cnn` for one channel."""
    return image_cnn(widths, channels=1)


def grey_lenet(widths: Widths) -> nn.Module:
    """[N, 1, 28, 28]: two convolutions, each with a pool, a hidden Linear over all positions, and the output."""
    first, second, hidden = widths
    return nn.Sequential(
        nn.Conv2d(1, first, 3, padding=1), nn.BatchNorm2d(first), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(first, second, 3, padding=1), nn.BatchNorm2d(second), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(49 * second, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, 10),
    )  # fmt: skip


def still(inputs: Tensor) -> Tensor:
    """Nothing moves."""
    return inputs


def shifted(inputs: Tensor) -> Tensor:
    """The whole batch up to two frames sooner or later."""
    return inputs.roll(int(torch.randint(-2, 3, ())), -1)


def mirrored(inputs: Tensor) -> Tensor:
    """The whole batch mirrored, or not."""
    return inputs.flip(-1) if torch.rand(()) < 0.5 else inputs
