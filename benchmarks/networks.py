"""A ResNet-18 and a transformer encoder, plainly written, and both again with dendrites written by hand."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Dendrites(nn.Module):
    """What `full` dendrites compute beside one layer: s * tanh(W x + b + sum of c_j * earlier_j), each added on."""

    def __init__(self, branches: list[nn.Module], shape: tuple[int, ...]):
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.strengths = nn.ParameterList([nn.Parameter(0.1 * torch.randn(shape)) for _ in branches])
        self.weights = nn.ModuleList(
            nn.ParameterList([nn.Parameter(0.1 * torch.randn(shape)) for _ in range(index)])
            for index in range(len(branches))
        )

    def forward(self, input: Tensor, neuron: Tensor) -> Tensor:
        """The neurons after their dendrites."""
        activities: list[Tensor] = []
        for branch, strength, weights in zip(self.branches, self.strengths, self.weights, strict=True):
            drive = branch(input)
            for weight, activity in zip(weights, activities, strict=True):
                drive = drive + weight * activity
            activities.append(torch.tanh(drive))
            neuron = neuron + strength * activities[-1]
        return neuron


class Dense(nn.Module):
    """A Linear with dendrites written by hand; without any, the Linear alone."""

    def __init__(self, inputs: int, outputs: int, dendrites: int):
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        branches: list[nn.Module] = [nn.Linear(inputs, outputs) for _ in range(dendrites)]
        self.dendrites = Dendrites(branches, (outputs,)) if dendrites else None

    def forward(self, input: Tensor) -> Tensor:
        """The neurons after their dendrites."""
        neuron = self.linear(input)
        return neuron if self.dendrites is None else self.dendrites(input, neuron)


class Convolution(nn.Module):
    """A convolution, its batch norm, and dendrites written by hand that join behind the batch norm."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, dendrites: int):
        super().__init__()
        geometry = {"kernel_size": kernel, "stride": stride, "padding": kernel // 2}
        self.conv = nn.Conv2d(inputs, outputs, **geometry, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        branches: list[nn.Module] = [nn.Conv2d(inputs, outputs, **geometry) for _ in range(dendrites)]
        self.dendrites = Dendrites(branches, (outputs, 1, 1)) if dendrites else None

    def forward(self, input: Tensor) -> Tensor:
        """The normalised neurons after their dendrites."""
        neuron = self.norm(self.conv(input))
        return neuron if self.dendrites is None else self.dendrites(input, neuron)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, dendrites: int):
        super().__init__()
        self.first = Convolution(inputs, outputs, 3, stride, dendrites)
        self.second = Convolution(outputs, outputs, 3, 1, dendrites)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else Convolution(inputs, outputs, 1, stride, dendrites)

    def forward(self, input: Tensor) -> Tensor:
        """[N, inputs, H, W] to [N, outputs, H / stride, W / stride]."""
        inner = self.second(functional.relu(self.first(input)))
        return functional.relu(inner + self.shortcut(input))


class ResNet18(nn.Module):
    """ResNet-18 (He et al. 2016): [N, 3, H, W] to [N, classes]; with `dendrites`, that many by hand at each site."""

    def __init__(self, classes: int = 10, dendrites: int = 0):
        super().__init__()
        self.stem = Convolution(3, 64, 7, 2, dendrites)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        blocks = []
        for inputs, outputs, stride in ((64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)):
            blocks += [BasicBlock(inputs, outputs, stride, dendrites), BasicBlock(outputs, outputs, 1, dendrites)]
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(512, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Scores of the classes."""
        features = self.blocks(self.pool(functional.relu(self.stem(images))))
        return self.head(features.mean((2, 3)))


class EncoderLayer(nn.Module):
    """Self-attention, then a two-layer perceptron, each behind a layer norm and beside a shortcut."""

    def __init__(self, width: int, heads: int, dropout: float, dendrites: int):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value, self.out = (Dense(width, width, dendrites) for _ in range(4))
        self.up, self.down = Dense(width, 4 * width, dendrites), Dense(4 * width, width, dendrites)

    def forward(self, tokens: Tensor) -> Tensor:
        """[N, length, width] to the same shape."""
        tokens = tokens + self._drop(self._attend(self.norm_1(tokens)))
        return tokens + self._drop(self.down(self._drop(functional.gelu(self.up(self.norm_2(tokens))))))

    def _attend(self, tokens: Tensor) -> Tensor:
        projected = (layer(tokens) for layer in (self.query, self.key, self.value))
        query, key, value = (one.unflatten(-1, (self.heads, -1)).transpose(1, 2) for one in projected)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return self.out(mixed.transpose(1, 2).flatten(2))

    def _drop(self, tokens: Tensor) -> Tensor:
        return functional.dropout(tokens, self.dropout, self.training)


class Encoder(nn.Module):
    """A transformer encoder: [N, length, width] to [N, classes]; with `dendrites`, that many by hand at each site."""

    def __init__(
        self, width: int = 256, heads: int = 4, depth: int = 6, length: int = 64, classes: int = 10, dendrites: int = 0
    ):
        super().__init__()
        self.positions = nn.Parameter(0.02 * torch.randn(length, width))
        self.layers = nn.Sequential(*(EncoderLayer(width, heads, 0.1, dendrites) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Scores of the classes."""
        return self.head(self.norm(self.layers(tokens + self.positions)).mean(1))
