"""The `adapter` kind: a change of few numbers that starts at nothing, for a network that stands still."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import torch
from torch import Tensor, nn

from graftkit.contracts import Dendrite
from graftkit.core.errors import PlanError
from graftkit.core.sites import Site
from graftkit.dendrites.activations import ACTIVATIONS, check_activation
from graftkit.dendrites.branch import neuron_shape
from graftkit.dendrites.drives import CentreTap, mixing, same_shape
from graftkit.dendrites.serving import Spread, Spreading, narrow, only


class AdapterDendrite(Dendrite):
    """activity = U act(read(input)) + sum over earlier dendrites j of c_j * activity_j.

    Joined as neuron * (1 + g) + activity + b, with one g and one b a neuron. U, g, b and c are zero at first: they are
    its strengths.

    Args:
        site: where it is grafted.
        index: how many dendrites are before it.
        activation: a name in ACTIVATIONS.
        read: from the site's input to hidden units at the site's positions.
        hidden: how many there are.
        macs: multiply-adds of `read` for one row of data.
    """

    local = True

    def __init__(self, site: Site, index: int, activation: str, read: nn.Module, hidden: int, macs: int):
        super().__init__()
        shape = neuron_shape(site)
        self.read, self.mix = read, mixing(site, hidden)
        self.activation = ACTIVATIONS[activation]
        self.gain, self.offset = (nn.Parameter(torch.zeros(shape)) for _ in range(2))
        self.earlier = nn.ParameterList([nn.Parameter(torch.zeros(shape)) for _ in range(index)])
        self.spread: Spread | None = None
        self.channel_dim = site.channel_dim
        nn.init.zeros_(self._last().weight)  # type: ignore[arg-type]
        self.macs = macs + (hidden + 1 + index) * site.out_channels * site.positions

    def reads(self, input: Tensor, neuron: Tensor, mask: Tensor | None = None) -> Tensor:
        return input

    def activity(self, read: Tensor, earlier: Sequence[Tensor]) -> Tensor:
        answer: Tensor = self.mix(self.activation(self.read(read)))
        for weight, activity in zip(self.earlier, earlier, strict=True):
            answer = answer + self._full(weight) * activity
        return answer

    def felt(self, neuron: Tensor, error: Tensor) -> Tensor:
        return error

    def wake(self) -> None:
        self._last().reset_parameters()  # type: ignore[operator]

    def join(self, neuron: Tensor, activity: Tensor) -> Tensor:
        return neuron * (1 + self._full(self.gain)) + activity + self._full(self.offset)

    def strengths(self) -> tuple[nn.Parameter, ...]:
        weight = self._last().weight
        assert isinstance(weight, nn.Parameter)
        return (weight, self.gain, self.offset, *self.earlier)

    def serve(self, neurons: Sequence[int]) -> None:
        last = self._last()
        self.spread = Spread(neurons, self.gain.shape[0]).to(self.gain)
        narrow(last, neurons)
        self.mix = Spreading(last, self.spread)
        self.gain, self.offset = only(self.gain, neurons), only(self.offset, neurons)
        self.earlier = nn.ParameterList([only(weight, neurons) for weight in self.earlier])

    def served(self) -> Tensor:
        weight = self._last().weight
        assert isinstance(weight, Tensor)
        own = (weight.flatten(1), self.gain.flatten().unsqueeze(1), self.offset.flatten().unsqueeze(1))
        return self._full(torch.cat(own, dim=1).detach().abs().mean(1))

    def _last(self) -> nn.Module:
        return self.mix.narrowed if isinstance(self.mix, Spreading) else self.mix

    def _full(self, rows: Tensor) -> Tensor:
        return rows if self.spread is None else self.spread(rows)


@dataclass(frozen=True)
class Adapter:
    """neuron * (1 + g) + U act(V input + a) + b, with `rank` hidden units; U, g and b are zero at first.

    With `centre`, V is a 1x1 convolution under the kernel's centre. Linear, it is a low-rank change of the weights
    (LoRA, Hu et al. 2022) with a factor for each neuron ((IA)3, Liu et al. 2022) and an offset; otherwise it is an
    adapter beside the layer (Houlsby et al. 2019).

    Attributes:
        rank: hidden units, 1 or more.
        centre: whether a convolution's centre tap alone is read.
        activation: linear, tanh, sigmoid, relu or gelu, of the hidden units.
    """

    name: ClassVar[str] = "adapter"
    summary: ClassVar[str] = "a low-rank change with a factor and an offset a neuron, for a network that stands still"

    rank: int = 2
    centre: bool = False
    activation: str = "linear"

    def __post_init__(self) -> None:
        check_activation(self.activation)
        if self.rank < 1:
            raise PlanError(f"adapter: rank must be 1 or more, not {self.rank}")

    def refuses(self, site: Site) -> str | None:
        return "a transposed convolution has no centre tap" if self.centre and site.is_transposed else None

    def build(self, site: Site, index: int) -> Dendrite:
        geometry = site.geometry
        macs = site.macs * (geometry.groups if geometry else 1) * self.rank // site.out_channels
        if not self.centre or geometry is None:
            read = same_shape(site, out_channels=self.rank, groups=1)
            return AdapterDendrite(site, index, self.activation, read, self.rank, macs)
        tap = CentreTap(site, geometry, out_channels=self.rank, groups=1)
        return AdapterDendrite(site, index, self.activation, tap, self.rank, macs // prod(geometry.kernel))
