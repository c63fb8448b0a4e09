"""What most kinds share: a drive, the cascade, a nonlinearity, and one strength a neuron."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from graftkit.contracts import Dendrite
from graftkit.core.sites import Site
from graftkit.dendrites.activations import ACTIVATIONS


def neuron_shape(site: Site) -> tuple[int, ...]:
    """The shape in which one number a neuron broadcasts to the site's output."""
    return (site.out_channels,) + (1,) * site.spatial_dims


class Branch(Dendrite):
    """activity = act(drive(input) + sum over earlier dendrites j of c_j * activity_j).

    Joined as neuron + strength * activity. The cascade weights c_j, one a neuron for each earlier
    dendrite, and the strengths are zero at first (Fahlman and Lebiere 1990, The Cascade-Correlation
    Learning Architecture, with one dendrite of a cascade belonging to one neuron).

    Args:
        site: where it is grafted.
        index: how many dendrites are before it.
        activation: a name in ACTIVATIONS.
        drive: what reads the site's input, giving the shape of the site's output.
        macs: multiply-adds of the drive for one row of data.
    """

    serves: Tensor | None

    def __init__(self, site: Site, index: int, activation: str, drive: nn.Module, macs: int):
        super().__init__()
        shape = neuron_shape(site)
        self.drive = drive
        self.activation = ACTIVATIONS[activation]
        self.strength = nn.Parameter(torch.zeros(shape))
        self.earlier = nn.ParameterList([nn.Parameter(torch.zeros(shape)) for _ in range(index)])
        self.register_buffer("serves", None)
        self.macs = macs + (1 + index) * site.out_channels * site.positions

    def forward(self, input: Tensor, neuron: Tensor, earlier: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
        drive = self.drive(input)
        for weight, activity in zip(self.earlier, earlier, strict=True):
            drive = drive + weight * activity
        return self.activation(drive)

    def join(self, neuron: Tensor, activity: Tensor) -> Tensor:
        strength = self.strength if self.serves is None else self.strength * self.serves
        return neuron + strength * activity

    def strengths(self) -> tuple[nn.Parameter, ...]:
        return (self.strength,)

    def serve(self, neurons: Sequence[int]) -> None:
        serves = torch.zeros_like(self.strength)
        serves[list(neurons)] = 1
        self.serves = serves

    def served(self) -> Tensor:
        strength = self.strength if self.serves is None else self.strength * self.serves
        return strength.detach().abs().flatten()
