"""Plain torch.nn networks over images, volumes, points and graphs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def small_cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.Dropout2d(0.2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.3), nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 10),
    )  # fmt: skip


def lenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(16 * 25, 40), nn.Tanh(), nn.Linear(40, 20), nn.Tanh(), nn.Linear(20, 10),
    )  # fmt: skip


def separable_cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.GroupNorm(2, 8), nn.Hardswish(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 16, 1), nn.InstanceNorm2d(16, affine=True), nn.PReLU(16),
        nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )  # fmt: skip


def conv1d_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(2, 8, 5, stride=2, padding=2), nn.BatchNorm1d(8), nn.GELU(), nn.MaxPool1d(2),
        nn.Conv1d(8, 12, 3, padding="same"), nn.BatchNorm1d(12), nn.GELU(), nn.AdaptiveAvgPool1d(4),
        nn.Flatten(), nn.Linear(48, 6),
    )  # fmt: skip


def conv3d_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(1, 4, 3, padding=1), nn.BatchNorm3d(4), nn.ReLU(), nn.MaxPool3d(2),
        nn.Conv3d(4, 8, (1, 3, 3), padding=(0, 1, 1)), nn.BatchNorm3d(8), nn.ReLU(),
        nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip


def generator() -> nn.Module:
    """A DCGAN generator: from noise [rows, 16] to images [rows, 1, 16, 16]."""
    return nn.Sequential(
        nn.Unflatten(1, (16, 1, 1)),
        nn.ConvTranspose2d(16, 16, 4), nn.BatchNorm2d(16), nn.ReLU(),
        nn.ConvTranspose2d(16, 8, 4, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.ConvTranspose2d(8, 1, 4, 2, 1), nn.Tanh(),
    )  # fmt: skip


def discriminator() -> nn.Module:
    """A DCGAN discriminator with spectrally normalised weights."""
    normed = nn.utils.parametrizations.spectral_norm
    return nn.Sequential(
        normed(nn.Conv2d(1, 8, 4, 2, 1)), nn.LeakyReLU(0.2), nn.Conv2d(8, 12, 4, 2, 1), nn.BatchNorm2d(12),
        nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(12 * 16, 1),
    )  # fmt: skip


def _twice(inward: int, outward: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inward, outward, 3, padding=1), nn.BatchNorm2d(outward), nn.ReLU(),
        nn.Conv2d(outward, outward, 3, padding=1), nn.BatchNorm2d(outward), nn.ReLU(),
    )  # fmt: skip


class UNet(nn.Module):
    """Down and up again with skip connections."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.middle = _twice(3, 6), _twice(6, 12), _twice(12, 16)
        self.up2, self.up1 = nn.ConvTranspose2d(16, 12, 2, 2), nn.ConvTranspose2d(12, 6, 2, 2)
        self.join2, self.join1, self.head = _twice(24, 12), _twice(12, 6), nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.down1(x)
        second = self.down2(functional.max_pool2d(first, 2))
        x = self.middle(functional.max_pool2d(second, 2))
        x = self.join2(torch.cat([self.up2(x), second], 1))
        return self.head(self.join1(torch.cat([self.up1(x), first], 1)))


class PyramidSegmenter(nn.Module):
    """A feature pyramid whose levels are resized to one another's size."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 12, 3, 2, 1)
        self.side_a, self.side_b, self.head = nn.Conv2d(8, 8, 1), nn.Conv2d(12, 8, 1), nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        a = torch.relu(self.a(x))
        b = torch.relu(self.b(a))
        top = functional.interpolate(self.side_b(b), size=a.shape[-2:], mode="nearest")
        merged = self.head(self.side_a(a) + top)
        return functional.interpolate(merged, size=x.shape[-2:], mode="bilinear", align_corners=False)


class SuperResolution(nn.Module):
    """Sub-pixel convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 12, 5, padding=2), nn.Conv2d(12, 9, 3, padding=1)
        self.shuffle = nn.PixelShuffle(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.shuffle(self.second(torch.relu(self.first(x))))


class SqueezeExcite(nn.Module):
    """A convolution whose channels are weighed by a small network over their means."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.squeeze, self.excite = nn.Conv2d(3, 12, 3), nn.Linear(12, 4), nn.Linear(4, 12)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(x))
        weights = torch.sigmoid(self.excite(torch.relu(self.squeeze(x.mean((2, 3))))))
        return self.head((x * weights[:, :, None, None]).amax((2, 3)))


class Capsules(nn.Module):
    """Primary capsules and two rounds of routing by agreement."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.primary = nn.Conv2d(1, 8, 5), nn.Conv2d(8, 16, 5, stride=2)
        self.vote = nn.Parameter(torch.randn(1, 64, 3, 4, 4) * 0.1)

    @staticmethod
    def squashed(x: Tensor) -> Tensor:
        square = (x * x).sum(-1, keepdim=True)
        return square / (1 + square) * x / torch.sqrt(square + 1e-8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.primary(torch.relu(self.conv(x)))
        capsules = self.squashed(x.reshape(x.shape[0], 64, 1, 1, 4))
        votes = (capsules @ self.vote).squeeze(3)
        routes = votes.new_zeros(x.shape[0], 64, 3, 1)
        for _ in range(2):
            found = self.squashed((torch.softmax(routes, 2) * votes).sum(1, keepdim=True))
            routes = routes + (votes * found).sum(-1, keepdim=True)
        return found.squeeze(1).norm(dim=-1)


class SpatialTransformer(nn.Module):
    """A network that turns its own input before it looks at it."""

    def __init__(self) -> None:
        super().__init__()
        self.locate = nn.Sequential(nn.Conv2d(1, 4, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(144, 6))
        self.conv, self.head = nn.Conv2d(1, 6, 3), nn.Linear(6, 4)
        nn.init.zeros_(self.locate[-1].weight)
        self.locate[-1].bias.data = torch.tensor([1.0, 0, 0, 0, 1, 0])

    def forward(self, x: Tensor) -> Tensor:
        grid = functional.affine_grid(self.locate(x).view(-1, 2, 3), list(x.shape), align_corners=False)
        return self.head(torch.relu(self.conv(functional.grid_sample(x, grid, align_corners=False))).mean((2, 3)))


class Patches(nn.Module):
    """Unfold, a Linear on every patch, and fold again."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.back = nn.Linear(48, 20), nn.Linear(20, 48)

    def forward(self, x: Tensor) -> Tensor:
        patches = functional.unfold(x, 4, stride=4).transpose(1, 2)
        return functional.fold(self.back(torch.relu(self.patch(patches))).transpose(1, 2), (16, 16), 4, stride=4)


class Unpooling(nn.Module):
    """A SegNet: pooling remembers where the maxima were, and unpooling puts them back."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 2, 3, padding=1)
        self.pool, self.unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        x, places = self.pool(torch.relu(self.into(x)))
        return self.out(self.unpool(x, places))


class GraphNet(nn.Module):
    """Two graph convolutions over node features and an adjacency matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(5, 12), nn.Linear(12, 12), nn.Linear(12, 3)

    def forward(self, nodes: Tensor, adjacency: Tensor) -> Tensor:
        degree = adjacency.sum(-1, keepdim=True).clamp(min=1)
        x = torch.relu(self.first(adjacency @ nodes / degree))
        return self.head(torch.relu(self.second(adjacency @ x / degree)).mean(1))


class DeepSets(nn.Module):
    """The same for any order of the elements."""

    def __init__(self) -> None:
        super().__init__()
        self.each = nn.Sequential(nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 12))
        self.all = nn.Sequential(nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 2))

    def forward(self, elements: Tensor) -> Tensor:
        return self.all(self.each(elements).sum(1))


class PointNet(nn.Module):
    """Points turned by a learned matrix, a shared perceptron, the maximum over points."""

    def __init__(self) -> None:
        super().__init__()
        self.turn = nn.Sequential(nn.Conv1d(3, 8, 1), nn.BatchNorm1d(8), nn.ReLU(), nn.AdaptiveMaxPool1d(1))
        self.matrix, self.points = nn.Linear(8, 9), nn.Conv1d(3, 16, 1)
        self.norm, self.head = nn.BatchNorm1d(16), nn.Linear(16, 4)

    def forward(self, points: Tensor) -> Tensor:
        matrix = self.matrix(self.turn(points).squeeze(-1)).view(-1, 3, 3) + torch.eye(3)
        return self.head(torch.relu(self.norm(self.points(matrix @ points))).amax(2))
