"""Plain torch.nn networks whose weights are unusual: tied, shared, computed, normalised, of other types."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize


class TiedLanguageModel(nn.Module):
    """The output layer's weight is the embedding's."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.recurrent = nn.Embedding(64, 16), nn.GRU(16, 16, batch_first=True)
        self.mix, self.head = nn.Linear(16, 16), nn.Linear(16, 64, bias=False)
        self.head.weight = self.words.weight

    def forward(self, words: Tensor) -> Tensor:
        return self.head(torch.relu(self.mix(self.recurrent(self.words(words))[0])))


class TiedAutoencoder(nn.Module):
    """The decoder uses the encoder's weights, transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.code = nn.Linear(20, 8), nn.Linear(8, 8)
        self.bias = nn.Parameter(torch.zeros(20))

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(torch.relu(self.code(torch.relu(self.encode(x)))), self.encode.weight.t(), self.bias)


class CalledTwice(nn.Module):
    """One block that is called twice, and one Linear under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Linear(12, 12), nn.BatchNorm1d(12), nn.ReLU())
        self.first = nn.Linear(12, 12)
        self.second, self.head = self.first, nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.second(self.block(torch.tanh(self.first(self.block(x)))))))


class Siamese(nn.Module):
    """One encoder for two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.embed, self.head = nn.Linear(24, 8), nn.Linear(8, 1)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        left, right = (self.embed(self.encoder(x)) for x in (left, right))
        return self.head((left - right).abs())


def weight_normed_old() -> nn.Module:
    """Weight norm through hooks, as it was before parametrizations."""
    conv, dense = nn.utils.weight_norm(nn.Conv1d(3, 8, 3)), nn.utils.weight_norm(nn.Linear(8, 8))
    return nn.Sequential(conv, nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), dense, nn.ReLU(), nn.Linear(8, 3))


def weight_normed() -> nn.Module:
    conv, dense = parametrizations.weight_norm(nn.Conv1d(3, 8, 3)), parametrizations.weight_norm(nn.Linear(8, 8))
    return nn.Sequential(conv, nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), dense, nn.ReLU(), nn.Linear(8, 3))


def spectrally_normed() -> nn.Module:
    """Both of torch's spectral norms: through hooks, and through a parametrization."""
    old, new = nn.utils.spectral_norm(nn.Linear(10, 12)), parametrizations.spectral_norm(nn.Linear(12, 12))
    return nn.Sequential(old, nn.ReLU(), new, nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 2))


def orthogonal() -> nn.Module:
    return nn.Sequential(
        parametrizations.orthogonal(nn.Linear(8, 8), "weight", "householder"), nn.ReLU(), nn.Linear(8, 8), nn.Tanh(),
        nn.Linear(8, 2),
    )  # fmt: skip


class Symmetric(nn.Module):
    """A parametrization of one's own."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight.triu() + weight.triu(1).transpose(-1, -2)


def symmetric() -> nn.Module:
    dense = nn.Linear(8, 8)
    parametrize.register_parametrization(dense, "weight", Symmetric())
    return nn.Sequential(dense, nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))


class Hypernetwork(nn.Module):
    """One network writes the filters of another, for each row."""

    def __init__(self) -> None:
        super().__init__()
        self.writer = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2 * 3 * 9))
        self.after, self.head = nn.Conv2d(2, 6, 3), nn.Linear(6, 4)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        patches = functional.unfold(x, 3, padding=1).unsqueeze(1)
        filters = self.writer(condition).reshape(x.shape[0], 2, 27, 1)
        found = (patches * filters).sum(2).reshape(x.shape[0], 2, *x.shape[-2:])
        return self.head(torch.relu(self.after(found)).mean((2, 3)))


class StandardisedConv(nn.Conv2d):
    """A convolution that standardises its weights on the fly."""

    def forward(self, x: Tensor) -> Tensor:
        mean, deviation = self.weight.mean((1, 2, 3), keepdim=True), self.weight.std((1, 2, 3), keepdim=True)
        return self._conv_forward(x, (self.weight - mean) / (deviation + 1e-5), self.bias)


def standardised() -> nn.Module:
    return nn.Sequential(
        StandardisedConv(3, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
    )  # fmt: skip


def of_type(dtype: torch.dtype) -> nn.Module:
    """A perceptron whose weights have another type."""
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3)).to(dtype)


class ComplexPerceptron(nn.Module):
    """Complex weights between a Fourier transform and its inverse."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.inward, self.head = nn.Linear(9, 9, dtype=torch.complex64), nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        spectrum = self.mix(torch.fft.rfft(torch.relu(self.inward(x))))
        return self.head(torch.fft.irfft(spectrum, n=16))


def half_frozen() -> nn.Module:
    """A feature extractor without gradients before a head that learns."""
    frozen = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    frozen.requires_grad_(False)
    return nn.Sequential(frozen, nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3))


class Codebook(nn.Module):
    """A vector-quantised autoencoder whose codes are moving averages, kept in buffers that training writes to."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = nn.Linear(12, 4), nn.Linear(4, 12)
        self.register_buffer("codes", torch.randn(8, 4))
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        found = self.encode(x)
        chosen = torch.cdist(found, self.codes).argmin(-1)
        code = self.codes[chosen]
        if self.training:
            hits = functional.one_hot(chosen, 8).to(found.dtype)
            means = hits.t() @ found.detach() / hits.sum(0).clamp(min=1).unsqueeze(1)
            self.codes.copy_(torch.where(hits.sum(0).unsqueeze(1) > 0, 0.9 * self.codes + 0.1 * means, self.codes))
            self.steps.add_(1)
        straight = found + (code - found).detach()
        return {"rebuilt": self.decode(straight), "chosen": chosen}


class Arithmetic(nn.Module):
    """Neural arithmetic: weights that are products of squashed parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.gate = nn.Parameter(torch.randn(6, 4)), nn.Parameter(torch.randn(6, 4))
        self.choose, self.head = nn.Linear(4, 6), nn.Linear(6, 1)

    def forward(self, x: Tensor) -> Tensor:
        weight = torch.tanh(self.wide) * torch.sigmoid(self.gate)
        added, multiplied = (
            functional.linear(x, weight),
            torch.exp(functional.linear(torch.log(x.abs() + 1e-6), weight)),
        )
        gate = torch.sigmoid(self.choose(x))
        return self.head(gate * added + (1 - gate) * multiplied.clamp(max=20))
