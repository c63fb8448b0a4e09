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
from graftkit.dendrites.branch import neuron_shape
from graftkit.dendrites.serving import Spread, narrow, only


class ContextDendrite(Dendrite):
    """Reads mean over positions of relu(neuron), [batch, out_channels]; answers one value a neuron.

    `answer` is zero at first, and is the dendrite's strength: there is no other.
    """

    local = False

    def __init__(self, site: Site, index: int, units: int, activation: str, gates: bool):
        super().__init__()
        self.gates = gates
        self.activation = ACTIVATIONS[activation]
        self.read = nn.Linear(site.out_channels, units)
        self.answer = nn.Linear(units, site.out_channels)
        nn.init.zeros_(self.answer.weight)
        nn.init.zeros_(self.answer.bias)
        self.earlier = nn.ParameterList([nn.Parameter(torch.zeros(neuron_shape(site))) for _ in range(index)])
        self.spread: Spread | None = None
        dims = range(len(site.output_shape))
        self.positions = tuple(d for d in dims if d not in (site.batch_dim, site.channel_dim))
        self.channels_last = site.is_linear
        gating = site.out_channels * site.positions if gates else 0
        self.macs = (2 * units + index) * site.out_channels + gating

    def reads(self, input: Tensor, neuron: Tensor, mask: Tensor | None = None) -> Tensor:
        return self._mean(torch.relu(neuron), mask)

    def activity(self, read: Tensor, earlier: Sequence[Tensor]) -> Tensor:
        hidden = self.activation(self.read(read))
        weight, bias = self._full(self.answer.weight), self._full(self.answer.bias)
        answer = self._spread(functional.linear(hidden, weight, bias))
        for weight, activity in zip(self.earlier, earlier, strict=True):
            answer = answer + self._full(weight) * activity
        return torch.tanh(answer) if self.gates else answer

    def felt(self, neuron: Tensor, error: Tensor) -> Tensor:
        return error * neuron if self.gates else error

    def wake(self) -> None:
        self.answer.reset_parameters()

    def join(self, neuron: Tensor, activity: Tensor) -> Tensor:
        return neuron * (1 + activity) if self.gates else neuron + activity

    def strengths(self) -> tuple[nn.Parameter, ...]:
        return (self.answer.weight, self.answer.bias, *self.earlier)

    def serve(self, neurons: Sequence[int]) -> None:
        self.spread = Spread(neurons, self.answer.out_features).to(self.answer.bias)
        narrow(self.answer, neurons)
        self.earlier = nn.ParameterList([only(weight, neurons) for weight in self.earlier])

    def served(self) -> Tensor:
        numbers = torch.cat([self.answer.weight, self.answer.bias.unsqueeze(1)], dim=1).detach().abs().mean(1)
        return self._full(numbers)

    def _full(self, rows: Tensor) -> Tensor:
        return rows if self.spread is None else self.spread(rows)

    def _mean(self, neuron: Tensor, mask: Tensor | None) -> Tensor:
        if mask is None:
            return neuron.mean(self.positions) if self.positions else neuron
        if not self.channels_last or len(self.positions) != 1:
            raise PlanError("a mask is for Linear calls over one sequence dimension, [batch, length, features]")
        counted = mask.to(neuron.dtype).unsqueeze(-1)
        (length,) = self.positions
        counted = counted if length == 1 else counted.transpose(0, 1)
        return (neuron * counted).sum(length) / counted.sum(length).clamp(min=1)

    def _spread(self, answer: Tensor) -> Tensor:
        for position in self.positions:
            answer = answer.unsqueeze(position)
        return answer


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
        if site.batch_dim is None:
            return "rows and positions are merged in one dimension, so there is no mean for each row"
        return None

    def build(self, site: Site, index: int) -> Dendrite:
        return ContextDendrite(site, index, self.units, self.activation, self.mode == "gate")
