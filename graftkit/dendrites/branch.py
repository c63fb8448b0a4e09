"""What most kinds share: a drive, the cascade, a nonlinearity, and one strength a neuron."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from graftkit.contracts import Dendrite
from graftkit.core.sites import Site
from graftkit.dendrites.activations import ACTIVATIONS
from graftkit.dendrites.drives import answering
from graftkit.dendrites.serving import Spread, narrow, only, slices, spread_rows


def neuron_shape(site: Site) -> tuple[int, ...]:
    """The shape in which one number a neuron broadcasts to the site's output."""
    return (site.out_channels,) + (1,) * site.spatial_dims


class Branch(Dendrite):
    """activity = act(drive(input) + sum over earlier dendrites j of c_j * activity_j).

    Joined as neuron + strength * activity. The cascade weights c_j, one a neuron for each earlier
    dendrite, and the strengths are zero at first (Fahlman and Lebiere 1990, The Cascade-Correlation
    Learning Architecture, with one dendrite of a cascade belonging to one neuron).

    Serving some neurons, it has weights for those alone. Where that is less arithmetic, spreading included, it is
    computed for those alone, too.

    Args:
        site: where it is grafted.
        index: how many dendrites are before it.
        activation: a name in ACTIVATIONS.
        drive: what reads the site's input, giving the shape of the site's output.
        macs: multiply-adds of the drive for one row of data.
        shared: those among them that do not depend on how many neurons there are.
    """

    def __init__(self, site: Site, index: int, activation: str, drive: nn.Module, macs: int, shared: int = 0):
        super().__init__()
        shape = neuron_shape(site)
        self.drive = drive
        self.activation = ACTIVATIONS[activation]
        self.strength = nn.Parameter(torch.zeros(shape))
        self.earlier = nn.ParameterList([nn.Parameter(torch.zeros(shape)) for _ in range(index)])
        self.spread: Spread | None = None
        self.narrow = False
        self.channels_last = site.is_linear
        self._site, self._drive_macs, self._shared = site, macs, shared
        self.macs = macs + (1 + index) * site.out_channels * site.positions

    def forward(self, input: Tensor, neuron: Tensor, earlier: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
        drive = self.drive(input)
        for weight, activity in zip(self.earlier, earlier, strict=True):
            drive = drive + (weight * self._own(activity) if self.narrow else self._full(weight) * activity)
        activity = self.activation(drive)
        if self.spread is None or not self.narrow:
            return activity
        return self.spread.activity(activity, channels_last=self.channels_last)

    def join(self, neuron: Tensor, activity: Tensor) -> Tensor:
        return neuron + self._full(self.strength) * activity

    def strengths(self) -> tuple[nn.Parameter, ...]:
        return (self.strength,)

    def serve(self, neurons: Sequence[int]) -> None:
        site, last = self._site, answering(self.drive)
        self.spread = Spread(neurons, site.out_channels).to(self.strength)
        count, index = len(neurons), len(self.earlier)
        own = (self._drive_macs - self._shared) // site.out_channels * count
        alone = self._shared + own + site.out_channels * count * site.positions
        self.narrow = getattr(last, "groups", 1) == 1 and alone < self._drive_macs
        if self.narrow:
            narrow(last, neurons)
            self.macs = alone + (site.out_channels + index * count) * site.positions
        elif slices(last):
            spread_rows(last, self.spread)
        self.strength = only(self.strength, neurons)
        self.earlier = nn.ParameterList([only(weight, neurons) for weight in self.earlier])

    def served(self) -> Tensor:
        return self._full(self.strength).detach().abs().flatten()

    def _full(self, rows: Tensor) -> Tensor:
        return rows if self.spread is None else self.spread(rows)

    def _own(self, activity: Tensor) -> Tensor:
        """What an earlier dendrite tells the neurons that this one serves."""
        assert self.spread is not None
        place = torch.tensor(self.spread.neurons, device=activity.device)
        return activity.index_select(activity.ndim - 1 if self.channels_last else 1, place)
