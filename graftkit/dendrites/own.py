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
from graftkit.dendrites.telling import OverPositions, refuses_merged_rows

_LEAST = 1e-5  # beside a variance: the slope of a root at zero has no end


class OwnDendrite(OverPositions):
    """Reads the mean of relu(neuron) and the neuron's spread, over positions, which stay as dimensions of size 1.

    The two come last, [batch, out_channels, 1, 1, 2] for instance; of a Linear without positions relu(neuron) alone.
    """

    def __init__(self, site: Site, index: int):
        super().__init__(site, index, gates=True)
        heard = 2 if self.positions else 1
        self.weight = nn.Parameter(torch.zeros(site.out_channels, heard))
        self.bias = nn.Parameter(torch.zeros(site.out_channels))
        self.macs += heard * site.out_channels
        self.macs += site.out_channels * site.positions if self.positions else 0  # squares, for the spread

    def forward(self, input: Tensor, neuron: Tensor, earlier: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
        return self._told(self._answer(self._heard(neuron, mask)), earlier)  # not put together and taken apart again

    def reads(self, input: Tensor, neuron: Tensor, mask: Tensor | None = None) -> Tensor:
        return torch.stack(self._heard(neuron, mask), -1)

    def activity(self, read: Tensor, earlier: Sequence[Tensor]) -> Tensor:
        return self._told(self._answer(read.unbind(-1)), earlier)

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

    def _heard(self, neuron: Tensor, mask: Tensor | None) -> tuple[Tensor, ...]:
        mean = self._mean(torch.relu(neuron), mask, kept=True)
        if not self.positions:
            return (mean,)
        apart = neuron - self._mean(neuron, mask, kept=True)
        return mean, (self._mean(apart * apart, mask, kept=True) + _LEAST).sqrt()

    def _answer(self, heard: Sequence[Tensor]) -> Tensor:
        """What each neuron is told at all positions.

        A convolution where there is one: OpenVINO 2026.4 multiplies what it has reduced to [batch, channels, 1] by
        numbers of other channels.
        """
        weight, bias = self._full(self.weight), self._full(self.bias)
        if self.channels_last:
            return sum((each * weight[:, place] for place, each in enumerate(heard)), bias)
        convolve = (torch.conv1d, torch.conv2d, torch.conv3d)[len(self.positions) - 1]
        kernel = weight.reshape(len(weight), *(1 for _ in self.positions), len(heard))
        return convolve(torch.cat(tuple(heard), -1), kernel, bias, groups=len(weight))


@dataclass(frozen=True)
class Own:
    """neuron * (1 + tanh(a m + b s + c)), three numbers a neuron, zero at first.

    m is the mean over all positions of relu(neuron), s the spread (standard deviation) of the neuron over them. The
    statistics of Lee, Kim and Nam 2019 (SRM: A Style-based Recalibration Module), as a graft.
    """

    name: ClassVar[str] = "own"
    summary: ClassVar[str] = "each neuron gated by its own mean and spread over all positions"

    def refuses(self, site: Site) -> str | None:
        return refuses_merged_rows(site)

    def build(self, site: Site, index: int) -> Dendrite:
        return OwnDendrite(site, index)
