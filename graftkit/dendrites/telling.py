"""What kinds share that answer each neuron at once: added to it or gating it, in cascade, of some neurons or all."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from graftkit.contracts import Dendrite
from graftkit.core.errors import PlanError
from graftkit.core.sites import Site
from graftkit.dendrites.branch import neuron_shape
from graftkit.dendrites.serving import Spread, only


class Telling(Dendrite):
    """Gating: neuron * (1 + tanh(answer + sum over earlier dendrites j of c_j * activity_j)); additive without tanh, 1.

    The answer is zero at first, as its weights are; those are the dendrite's strengths: there are no others.
    """

    local = False

    def __init__(self, site: Site, index: int, *, gates: bool):
        super().__init__()
        self.gates = gates
        self.earlier = nn.ParameterList([nn.Parameter(torch.zeros(neuron_shape(site))) for _ in range(index)])
        self.spread: Spread | None = None

    def felt(self, neuron: Tensor, error: Tensor) -> Tensor:
        return error * neuron if self.gates else error

    def join(self, neuron: Tensor, activity: Tensor) -> Tensor:
        return neuron * (1 + activity) if self.gates else neuron + activity

    def _told(self, answer: Tensor, earlier: Sequence[Tensor]) -> Tensor:
        """The activity, given an answer that broadcasts to the neurons' shape."""
        for weight, activity in zip(self.earlier, earlier, strict=True):
            answer = answer + self._full(weight) * activity
        return torch.tanh(answer) if self.gates else answer

    def _serve(self, neurons: Sequence[int], site_neurons: int, like: Tensor) -> None:
        """What `serve` does to what is here."""
        self.spread = Spread(neurons, site_neurons).to(like)
        self.earlier = nn.ParameterList([only(weight, neurons) for weight in self.earlier])

    def _full(self, rows: Tensor) -> Tensor:
        """A row a served neuron among zeros for all others."""
        return rows if self.spread is None else self.spread(rows)


class OverPositions(Telling):
    """One that answers each neuron alike at all positions, from what the layer says at all of them."""

    def __init__(self, site: Site, index: int, *, gates: bool):
        super().__init__(site, index, gates=gates)
        dims = range(len(site.output_shape))
        self.positions = tuple(d for d in dims if d not in (site.batch_dim, site.channel_dim))
        self.channels_last = site.is_linear
        # without the answer; what earlier ones say may differ from position to position
        self.macs = (index + gates) * site.out_channels * site.positions

    def _mean(self, neuron: Tensor, mask: Tensor | None, *, kept: bool = False) -> Tensor:
        """Over all positions that count, [batch, out_channels]; `kept`, with a 1 for each dimension of positions."""
        if mask is None:
            return neuron.mean(self.positions, keepdim=kept) if self.positions else neuron
        if not self.channels_last or len(self.positions) != 1:
            raise PlanError("a mask is for Linear calls over one sequence dimension, [batch, length, features]")
        counted = mask.to(neuron.dtype).unsqueeze(-1)
        (length,) = self.positions
        counted = counted if length == 1 else counted.transpose(0, 1)
        return (neuron * counted).sum(length, keepdim=kept) / counted.sum(length, keepdim=kept).clamp(min=1)

    def _everywhere(self, answer: Tensor) -> Tensor:
        """[batch, out_channels], the same at each position."""
        for position in self.positions:
            answer = answer.unsqueeze(position)
        return answer


def refuses_rows(site: Site) -> str | None:
    """Why positions of a site cannot be told from rows; None if they can."""
    if site.batch_dim is None:
        return "rows and positions are merged in one dimension, so there is no mean for each row"
    if not site.is_linear and site.batch_dim != 0:
        return "its rows are not in the first dimension, so they lie among its positions"
    return None
