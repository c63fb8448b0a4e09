"""The `pooled` kind: each neuron reads the means of its inputs' neighbourhoods, a coarse second look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from graftkit.contracts import Dendrite
from graftkit.core.errors import PlanError
from graftkit.core.sites import Site
from graftkit.dendrites.activations import check_activation
from graftkit.dendrites.adapter import AdapterDendrite


class Means(nn.Module):
    """[..., features] to the means of `groups` runs of neighbours, [..., groups]."""

    def __init__(self, groups: int):
        super().__init__()
        self.groups = groups

    def forward(self, input: Tensor) -> Tensor:
        return input.reshape(*input.shape[:-1], self.groups, -1).mean(-1)


@dataclass(frozen=True)
class Pooled:
    """neuron * (1 + g) + U act(m) + b, m the means of runs of neighbouring inputs; U, g and b are zero at first.

    Behind a convolution's map that was flattened, [channels, positions], a run is a part of one channel's map; so few
    numbers move many weights together.

    Attributes:
        groups: how many runs at most; as many as divide the inputs.
        activation: linear, tanh, sigmoid, relu or gelu, of the means.
    """

    name: ClassVar[str] = "pooled"
    summary: ClassVar[str] = "means of neighbouring inputs, for a Linear behind a flattened map"

    groups: int = 16
    activation: str = "linear"

    def __post_init__(self) -> None:
        check_activation(self.activation)
        if self.groups < 1:
            raise PlanError(f"pooled: groups must be 1 or more, not {self.groups}")

    def refuses(self, site: Site) -> str | None:
        return None if site.is_linear else "only a Linear call's inputs lie in one row; adapter and context fit"

    def build(self, site: Site, index: int) -> Dendrite:
        groups = max(n for n in range(1, min(self.groups, site.in_channels) + 1) if site.in_channels % n == 0)
        macs = site.in_channels * site.positions
        return AdapterDendrite(site, index, self.activation, Means(groups), groups, macs)
