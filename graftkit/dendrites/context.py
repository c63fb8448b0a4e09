"""The `context` kind: tells each neuron what its layer says at all other positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from graftkit.contracts import Dendrite
from graftkit.core.errors import PlanError
from graftkit.core.sites import Site
from graftkit.dendrites.activations import ACTIVATIONS, check_activation
from graftkit.dendrites.serving import narrow
from graftkit.dendrites.telling import OverPositions, refuses_rows


class ContextDendrite(OverPositions):
    """Reads mean over positions of relu(neuron), [batch, out_channels]; answers one value a neuron."""

    def __init__(self, site: Site, index: int, units: int, activation: str, gates: bool):
        super().__init__(site, index, gates=gates)
        self.activation = ACTIVATIONS[activation]
        self.read = nn.Linear(site.out_channels, units)
        self.answer = nn.Linear(units, site.out_channels)
        nn.init.zeros_(self.answer.weight)
        nn.init.zeros_(self.answer.bias)
        self.macs += 2 * units * site.out_channels

    def reads(self, input: Tensor, neuron: Tensor, mask: Tensor | None = None) -> Tensor:
        return self._mean(torch.relu(neuron), mask)

    def activity(self, read: Tensor, earlier: Sequence[Tensor]) -> Tensor:
        hidden = self.activation(self.read(read))
        weight, bias = self._full(self.answer.weight), self._full(self.answer.bias)
        return self._told(self._everywhere(functional.linear(hidden, weight, bias)), earlier)

    def wake(self) -> None:
        self.answer.reset_parameters()

    def strengths(self) -> tuple[nn.Parameter, ...]:
        return (self.answer.weight, self.answer.bias, *self.earlier)

    def serve(self, neurons: Sequence[int]) -> None:
        self._serve(neurons, self.answer.out_features, self.answer.bias)
        narrow(self.answer, neurons)

    def served(self) -> Tensor:
        numbers = torch.cat([self.answer.weight, self.answer.bias.unsqueeze(1)], dim=1).detach().abs().mean(1)
        return self._full(numbers)


@dataclass(frozen=True)
class Context:
    """Gating: neuron * (1 + tanh(B act(D m + d) + b)); additive: neuron + B act(D m + d) + b.

    m is the mean over all positions of relu(neuron); B and b are zero at first. The gating form is the
    idea of squeeze-and-excitation (Hu et al. 2018) as a graft.

    Attributes:
        units: hidden units, 1 to 4.
        mode: "gate" or "add".
        activation: tanh, sigmoid, relu, gelu or linear, of the hidden units.
    """

    name: ClassVar[str] = "context"
    summary: ClassVar[str] = "what the layer says elsewhere, added to each neuron or gating it"

    units: int = 4
    mode: str = "gate"
    activation: str = "tanh"

    def __post_init__(self) -> None:
        check_activation(self.activation)
        if not 1 <= self.units <= 4:
            raise PlanError(f"context: units must be 1 to 4, not {self.units}")
        if self.mode not in ("gate", "add"):
            raise PlanError(f"context: mode must be gate or add, not {self.mode!r}")

    def refuses(self, site: Site) -> str | None:
        return refuses_rows(site)

    def build(self, site: Site, index: int) -> Dendrite:
        return ContextDendrite(site, index, self.units, self.activation, self.mode == "gate")
