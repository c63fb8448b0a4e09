"""The `around` kind: each neuron gated, at each position, by what it says in the neighbourhood."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from graftkit.contracts import Dendrite
from graftkit.core.errors import PlanError
from graftkit.core.sites import Site
from graftkit.dendrites.serving import only
from graftkit.dendrites.telling import Telling, refuses_rows

_TAPS = 3  # in each direction


class AroundDendrite(Telling):
    """Reads relu(neuron), a map of the output's shape; answers each position of it from the taps around."""

    def __init__(self, site: Site, index: int, dilation: int):
        super().__init__(site, index, gates=True)
        self.dilation = dilation
        taps = (_TAPS,) * site.spatial_dims
        self.weight = nn.Parameter(torch.zeros(site.out_channels, 1, *taps))
        self.bias = nn.Parameter(torch.zeros(site.out_channels))
        self._convolve = (torch.conv1d, torch.conv2d, torch.conv3d)[site.spatial_dims - 1]
        self.macs = site.out_channels * site.positions * (_TAPS**site.spatial_dims + 1 + index)

    def reads(self, input: Tensor, neuron: Tensor, mask: Tensor | None = None) -> Tensor:
        return torch.relu(neuron)

    def activity(self, read: Tensor, earlier: Sequence[Tensor]) -> Tensor:
        weight, bias, apart = self._full(self.weight), self._full(self.bias), self.dilation
        answer = self._convolve(read, weight, bias, padding=apart, dilation=apart, groups=len(bias))
        return self._told(answer, earlier)

    def wake(self) -> None:
        bound = self.weight[0].numel() ** -0.5
        for weight in (self.weight, self.bias):
            nn.init.uniform_(weight, -bound, bound)

    def strengths(self) -> tuple[nn.Parameter, ...]:
        return (self.weight, self.bias, *self.earlier)

    def serve(self, neurons: Sequence[int]) -> None:
        self._serve(neurons, len(self.bias), self.bias)
        self.weight, self.bias = only(self.weight, neurons), only(self.bias, neurons)

    def served(self) -> Tensor:
        return self._full(torch.cat([self.weight.flatten(1), self.bias.unsqueeze(1)], dim=1).detach().abs().mean(1))


@dataclass(frozen=True)
class Around:
    """neuron * (1 + tanh(k * relu(neuron) + c)), k a kernel of three taps a dimension for each neuron, zero at first.

    A depthwise convolution over the layer's own map, dilated so that it sees further than the layer does: the gather of
    Hu et al. 2018 (Gather-Excite: Exploiting Feature Context in Convolutional Neural Networks), as a graft.

    Attributes:
        dilation: how far apart the taps are, 1 or more.
    """

    name: ClassVar[str] = "around"
    summary: ClassVar[str] = "each neuron gated, at each position, by what it says around there"

    dilation: int = 2

    def __post_init__(self) -> None:
        if self.dilation < 1:
            raise PlanError(f"around: dilation must be 1 or more, not {self.dilation}")

    def refuses(self, site: Site) -> str | None:
        if site.is_linear:
            return "a Linear's positions lie in no map; own and context fit"
        if all(size == 1 for size in site.output_shape[2:]):
            return "there is one position, and nothing around it; own and context fit"
        return refuses_rows(site)

    def build(self, site: Site, index: int) -> Dendrite:
        return AroundDendrite(site, index, self.dilation)
