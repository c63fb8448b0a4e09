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


class Residual(nn.Module):
    """Two 3x3 convolutions with batch norm beside what comes in (He et al. 2016)."""

    def __init__(self, before: int, width: int, stride: int):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        same = stride == 1 and before == width
        aside = nn.Sequential(nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width))
        self.aside = nn.Identity() if same else aside

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))) + self.aside(x))


def resnet18(width: int = 64, *, pooled: bool = False) -> nn.Module:
    """[N, 3, 32, 32]: ResNet-18 with a 3x3 stem, as it is used for such images.

    Or `pooled`, as He et al. have it: a 7x7 stem of stride 2 and a pool behind, for a fifteenth of the multiply-adds.
    """
    kernel = (7, 2, 3) if pooled else (3, 1, 1)
    layers: list[nn.Module] = [nn.Conv2d(3, width, *kernel, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    layers += [nn.MaxPool2d(3, 2, 1)] if pooled else []
    before = width
    for stage in range(4):
        now = width * 2**stage
        layers += [Residual(before, now, 2 if stage else 1), Residual(now, now, 1)]
        before = now
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 10))


class Block(nn.Module):
    """A transformer's layer, norms first."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, dropout=0.1, batch_first=True)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        seen = self.norm1(x)
        x = x + self.attention(seen, seen, seen, need_weights=False)[0]
        return x + self.down(nn.functional.gelu(self.up(self.norm2(x))))


class SpeechTransformer(nn.Module):
    """[N, 16, 49] bands and frames: a frame a word, four layers, their mean."""

    def __init__(self, width: int = 64, heads: int = 4, layers: int = 4):
        super().__init__()
        self.embed, self.place = nn.Linear(16, width), nn.Parameter(0.02 * torch.randn(1, 49, width))
        self.layers = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.layers(self.embed(x.mT) + self.place)).mean(1))


def speech_transformer() -> nn.Module:
    """A fresh one, of 139,000 parameters."""
    return SpeechTransformer()


def still(inputs: Tensor) -> Tensor:
    """Nothing moves."""
    return inputs


def shifted(inputs: Tensor) -> Tensor:
    """The whole batch up to two frames sooner or later."""
    return inputs.roll(int(torch.randint(-2, 3, ())), -1)


def mirrored(inputs: Tensor) -> Tensor:
    """The whole batch mirrored, or not."""
    return inputs.flip(-1) if torch.rand(()) < 0.5 else inputs
