"""The `pointwise` kind: only the centre tap of a convolution's kernel."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar

from graftkit.contracts import Dendrite
from graftkit.core.errors import PlanError
from graftkit.core.sites import Site
from graftkit.dendrites.activations import check_activation
from graftkit.dendrites.branch import Branch
from graftkit.dendrites.drives import CentreTap


@dataclass(frozen=True)
class Pointwise:
    """neuron + strength * act(w input at the kernel's centre + b).

    Attributes:
        activation: tanh, sigmoid, relu, gelu or linear.
    """

    name: ClassVar[str] = "pointwise"
    summary: ClassVar[str] = "the centre tap only: a 1x1 convolution beside the kernel"

    activation: str = "tanh"

    def __post_init__(self) -> None:
        check_activation(self.activation)

    def refuses(self, site: Site) -> str | None:
        if site.is_linear:
            return "a Linear call has no centre tap; full and lowrank fit"
        return "the centre tap of a transposed convolution is not one input" if site.is_transposed else None

    def build(self, site: Site, index: int) -> Dendrite:
        if site.geometry is None:
            raise PlanError(f"{site.key}: {self.refuses(site)}")
        macs = site.macs // prod(site.geometry.kernel)
        return Branch(site, index, self.activation, CentreTap(site, site.geometry), macs)
