"""Plain torch.nn networks with control flow, randomness, experts and Fourier transforms."""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .classic_calls import perceptron


def folded(x: Tensor) -> Tensor:
    """Control flow that looks at the data; the module below scripts it."""
    if bool(x.sum() > 0):  # noqa: SIM108
        result = x.clamp(min=0.0)
    else:
        result = x * 0.1
    return result


class ScriptedIf(nn.Module):
    """Calls a scripted function whose `if` looks at the data."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.middle, self.head = nn.Linear(6, 12), nn.Linear(12, 12), nn.Linear(12, 3)
        self.folded = torch.jit.script(folded)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.middle(self.folded(self.body(x)))))


class PythonIf(nn.Module):
    """A Python `if` that looks at the data."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(6, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.body(x))
        if x.mean() > 0.5:
            x = x / x.mean()
        return self.head(x)


class EarlyExit(nn.Module):
    """Stages that are passed over with `continue` where the rows are sure already."""

    def __init__(self) -> None:
        super().__init__()
        self.stages, self.head = nn.ModuleList(nn.Linear(8, 8) for _ in range(3)), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages:
            if self.head(x).softmax(-1).max() > 0.9:
                continue
            x = torch.relu(stage(x))
        return self.head(x)


class NumpyInside(nn.Module):
    """Leaves torch in the middle of `forward`."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(6, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.body(x))
        order = np.argsort(x.detach().numpy().mean(0))
        return self.head(x[:, torch.from_numpy(order.copy())])


class Checkpointed(nn.Module):
    """Activations computed again in the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = perceptron(6, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(checkpoint(self.body, x, use_reentrant=False)))


class StochasticDepth(nn.Module):
    """Residual branches that rows leave out at random in training."""

    def __init__(self) -> None:
        super().__init__()
        self.inward, self.blocks = nn.Linear(6, 12), nn.ModuleList(nn.Linear(12, 12) for _ in range(3))
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inward(x)
        for block in self.blocks:
            branch = torch.relu(block(x))
            if self.training:
                branch = branch * (torch.rand(len(x), 1) < 0.7) / 0.7
            x = x + branch
        return self.head(x)


class LayerDrop(nn.Module):
    """Python draws in training which layers to leave out."""

    def __init__(self) -> None:
        super().__init__()
        self.layerdrop = 0.3
        self.layers, self.head = nn.ModuleList(nn.Linear(8, 8) for _ in range(4)), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            if self.training and random.random() < self.layerdrop:
                continue
            x = x + torch.relu(layer(x))
        return self.head(x)


class Variational(nn.Module):
    """A variational autoencoder; it samples in training alone, or always."""

    def __init__(self, *, always: bool):
        super().__init__()
        self.always = always
        self.encode, self.mean, self.spread = nn.Linear(20, 16), nn.Linear(16, 4), nn.Linear(16, 4)
        self.expand, self.decode = nn.Linear(4, 16), nn.Linear(16, 20)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        hidden = torch.relu(self.encode(x))
        mean, spread = self.mean(hidden), self.spread(hidden)
        code = mean + torch.randn_like(mean) * torch.exp(0.5 * spread) if self.training or self.always else mean
        return {"mean": mean, "spread": spread, "rebuilt": self.decode(torch.relu(self.expand(code)))}


class DenseExperts(nn.Module):
    """A mixture of experts that all look at every row."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.experts = nn.Linear(8, 4), nn.ModuleList(perceptron(8, 6, 12) for _ in range(4))
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        found = torch.stack([expert(x) for expert in self.experts], -1)
        return self.head((found * torch.softmax(self.gate(x), -1).unsqueeze(1)).sum(-1))


class RoutedExperts(nn.Module):
    """A mixture of experts each of which reads only the rows that are sent to it."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.experts = nn.Linear(8, 3), nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        weights, chosen = torch.softmax(self.gate(x), -1).topk(2)
        total = torch.zeros_like(x)
        for index, expert in enumerate(self.experts):
            rows, place = torch.where(chosen == index)
            total = total.index_add(0, rows, torch.relu(expert(x[rows])) * weights[rows, place].unsqueeze(1))
        return self.head(total)


class Spectral(nn.Module):
    """A global filter: a product in the frequency domain between Linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.inward, self.outward = nn.Linear(6, 8), nn.Linear(8, 3)
        self.filter = nn.Parameter(torch.randn(9, 8, 2) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(self.inward(x), dim=1) * torch.view_as_complex(self.filter)
        return self.outward(torch.relu(torch.fft.irfft(spectrum, n=16, dim=1)).mean(1))


class Mixing(nn.Module):
    """Token and channel mixing through FFTs, of which the real part is kept (FNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.inward, self.norm, self.outward = nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inward(x)
        return self.outward(torch.relu(self.norm(x + torch.fft.fft2(x).real)).mean(1))


class OdeNet(nn.Module):
    """Five Runge-Kutta steps through one small network, which is called twenty times."""

    def __init__(self) -> None:
        super().__init__()
        self.slope, self.head = nn.Sequential(nn.Linear(4, 12), nn.Tanh(), nn.Linear(12, 4)), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(5):
            a = self.slope(x)
            b = self.slope(x + 0.1 * a)
            c = self.slope(x + 0.1 * b)
            x = x + (a + 2 * b + 2 * c + self.slope(x + 0.2 * c)) / 30
        return self.head(x)


class Bare(nn.Module):
    """Products with parameters alone: there is no Linear and no convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Parameter(torch.randn(6, 8) * 0.3), nn.Parameter(torch.randn(8, 2) * 0.3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x @ self.first) @ self.second
