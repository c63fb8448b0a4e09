"""The `depthwise` kind: each neuron's branch reads only its own share of the input channels."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd
from typing import ClassVar

from graftkit.contracts import Dendrite
from graftkit.core.sites import Site
from graftkit.dendrites.activations import check_activation
from graftkit.dendrites.branch import Branch
from graftkit.dendrites.drives import same_shape


@dataclass(frozen=True)
class Depthwise:
    """neuron + strength * act(w * input + b), a convolution with as many groups as both channel counts allow.

    With 16 channels in and 16 or 32 out, each neuron reads one channel; with 12 in and 20 out, three
    (the greatest common divisor makes four groups).

    Attributes:
        activation: tanh, sigmoid, relu, gelu or linear.
    """

    name: ClassVar[str] = "depthwise"
    summary: ClassVar[str] = "each neuron reads its own share of the input channels"

    activation: str = "tanh"

    def __post_init__(self) -> None:
        check_activation(self.activation)

    def refuses(self, site: Site) -> str | None:
        return "a Linear call has no channels to keep apart; full and lowrank fit" if site.is_linear else None

    def build(self, site: Site, index: int) -> Dendrite:
        groups = gcd(site.in_channels, site.out_channels)
        given = site.geometry.groups if site.geometry else 1
        drive = same_shape(site, groups=groups)
        return Branch(site, index, self.activation, drive, site.macs * given // groups)
