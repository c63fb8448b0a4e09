"""The `own` kind: each neuron's gain, set by its own mean and spread over all positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from graftkit.contracts import Dendrite
from graftkit.core.sites import Site
from graftkit.dendrites.serving import only
from graftkit.dendrites.telling import OverPositions, refuses_rows


class OwnDendrite(OverPositions):
    """Reads the mean of relu(neuron) and the neuron's spread over all positions, side by side along the last of them.

    So from a map [batch, out_channels, 8, 8] it reads [batch, out_channels, 1, 2], from tokens [batch, 9, features]
    [batch, 2, features]; where there is but one position relu(neuron) alone.
    """

    def __init__(self, site: Site, index: int):
        super().__init__(site, index, gates=True)
        self.alone = all(site.output_shape[dim] == 1 for dim in self.positions)
        heard = 1 if self.alone else 2
        self.weight = nn.Parameter(torch.zeros(site.out_channels, heard))
        self.bias = nn.Parameter(torch.zeros(site.out_channels))
        self.macs += heard * site.out_channels

    def reads(self, input: Tensor, neuron: Tensor, mask: Tensor | None = None) -> Tensor:
        mean = self._mean(torch.relu(neuron), mask, kept=True)
        if self.alone:
            return mean
        apart = (neuron - self._mean(neuron, mask, kept=True)).abs()
        return torch.cat([mean, self._mean(apart, mask, kept=True)], self.positions[-1])

    def activity(self, read: Tensor, earlier: Sequence[Tensor]) -> Tensor:
        weight, bias = self._full(self.weight), self._full(self.bias)
        if not self.channels_last:
            # OpenVINO 2026.4 multiplies what it has reduced to [batch, channels, 1] by numbers of other channels
            kernel = weight.reshape(len(weight), *(1 for _ in self.positions), weight.shape[1])
            convolve = (torch.conv1d, torch.conv2d, torch.conv3d)[len(self.positions) - 1]
            answer = convolve(read, kernel, bias, groups=len(weight))
        elif self.alone:
            answer = read * weight[:, 0] + bias
        else:
            length = self.positions[-1]
            mean, spread = (read.narrow(length, place, 1) for place in (0, 1))
            answer = mean * weight[:, 0] + spread * weight[:, 1] + bias
        return self._told(answer, earlier)

    def wake(self) -> None:
        for weight in (self.weight, self.bias):
            nn.init.uniform_(weight, -1, 1)

    def strengths(self) -> tuple[nn.Parameter, ...]:
        return (self.weight, self.bias, *self.earlier)

    def serve(self, neurons: Sequence[int]) -> None:
        self._serve(neurons, len(self.bias), self.bias)
        self.weight, self.bias = only(self.weight, neurons), only(self.bias, neurons)

    def served(self) -> Tensor:
        return self._full(torch.cat([self.weight, self.bias.unsqueeze(1)], dim=1).detach().abs().mean(1))


@dataclass(frozen=True)
class Own:
    """neuron * (1 + tanh(a m + b s + c)), with numbers a, b and c of each neuron, zero at first.

    m is the mean over all positions of relu(neuron), s the mean of how far the neuron is from its own mean there. After
    Lee, Kim and Nam 2019 (SRM: A Style-based Recalibration Module), whose spread is the standard deviation: squares
    are more than half precision holds. Where there is one position, m is relu(neuron), and s and b are not there.
    """

    name: ClassVar[str] = "own"
    summary: ClassVar[str] = "each neuron gated by its own mean and spread over all positions"

    def refuses(self, site: Site) -> str | None:
        return refuses_rows(site)

    def build(self, site: Site, index: int) -> Dendrite:
        return OwnDendrite(site, index)
