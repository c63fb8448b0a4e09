"""The `full` kind: a branch with the site's own shape, one more copy of the layer's weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from graftkit.contracts import Dendrite
from graftkit.core.sites import Site
from graftkit.dendrites.activations import check_activation
from graftkit.dendrites.branch import Branch
from graftkit.dendrites.drives import same_shape


@dataclass(frozen=True)
class Full:
    """neuron + strength * act(W input + b), with W of the site's own shape.

    Attributes:
        activation: tanh, sigmoid, relu, gelu or linear.
    """

    name: ClassVar[str] = "full"
    summary: ClassVar[str] = "the site's own shape: one more copy of the layer for each dendrite"

    activation: str = "tanh"

    def __post_init__(self) -> None:
        check_activation(self.activation)

    def refuses(self, site: Site) -> str | None:
        return None

    def build(self, site: Site, index: int) -> Dendrite:
        return Branch(site, index, self.activation, same_shape(site), site.macs)
