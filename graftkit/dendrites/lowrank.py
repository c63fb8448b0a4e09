"""The `lowrank` kind: a few hidden units of the site's shape, shared and mixed into all neurons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from graftkit.contracts import Dendrite
from graftkit.core.errors import PlanError
from graftkit.core.sites import Site
from graftkit.dendrites.activations import ACTIVATIONS, check_activation
from graftkit.dendrites.branch import Branch
from graftkit.dendrites.drives import mixing, same_shape


class Bottleneck(nn.Module):
    """U act(V input + b): `rank` hidden units of the site's shape, mixed into all neurons."""

    def __init__(self, site: Site, rank: int, activation: str):
        super().__init__()
        self.read = same_shape(site, out_channels=rank, groups=1)
        self.mix = mixing(site, rank)
        self.activation = ACTIVATIONS[activation]

    def forward(self, input: Tensor) -> Tensor:
        mixed: Tensor = self.mix(self.activation(self.read(input)))
        return mixed


@dataclass(frozen=True)
class Lowrank:
    """neuron + strength * act(U act(V input + b)), with `rank` hidden units shared by all neurons.

    Attributes:
        rank: hidden units, 1 or more.
        activation: tanh, sigmoid, relu, gelu or linear, of the hidden units and of the dendrite.
    """

    name: ClassVar[str] = "lowrank"
    summary: ClassVar[str] = "a few shared hidden units of the site's shape, mixed into all neurons"

    rank: int = 2
    activation: str = "tanh"

    def __post_init__(self) -> None:
        check_activation(self.activation)
        if self.rank < 1:
            raise PlanError(f"lowrank: rank must be 1 or more, not {self.rank}")

    def refuses(self, site: Site) -> str | None:
        return None

    def build(self, site: Site, index: int) -> Dendrite:
        groups = site.geometry.groups if site.geometry else 1
        read = site.macs * groups * self.rank // site.out_channels
        mix = self.rank * site.out_channels * site.positions
        return Branch(site, index, self.activation, Bottleneck(site, self.rank, self.activation), read + mix, read)
