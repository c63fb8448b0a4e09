"""What most kinds share: a drive, the cascade, a nonlinearity, and one strength a neuron."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn

from graftkit.contracts import Dendrite
from graftkit.core.sites import Site
from graftkit.dendrites.activations import ACTIVATIONS
from graftkit.dendrites.drives import answering, replaced
from graftkit.dendrites.serving import Spread, Spreading, narrow, only, slices


def neuron_shape(site: Site) -> tuple[int, ...]:
    """The shape in which one number a neuron broadcasts to the site's output."""
    return (site.out_channels,) + (1,) * site.spatial_dims


class Branch(Dendrite):
    """activity = act(drive(input) + sum over earlier dendrites j of c_j * activity_j).

    Joined as neuron + strength * activity. The cascade weights c_j, one a neuron for each earlier
    dendrite, and the strengths are zero at first (Fahlman and Lebiere 1990, The Cascade-Correlation
    Learning Architecture, with one dendrite of a cascade belonging to one neuron).

    Serving some neurons, it has weights for those alone (but of a grouped transposed convolution), and says nothing to
    the others: they read zeros. Where that is less arithmetic, spreading included, it is computed for those alone, too;
    a grouped convolution never is.

    Args:
        site: where it is grafted.
        index: how many dendrites are before it.
        activation: a name in ACTIVATIONS.
        drive: what reads the site's input, giving the shape of the site's output.
        macs: multiply-adds of the drive for one row of data.
        shared: those among them that do not depend on how many neurons there are.
    """

    local = True

    def __init__(self, site: Site, index: int, activation: str, drive: nn.Module, macs: int, shared: int = 0):
        super().__init__()
        shape = neuron_shape(site)
        self.drive = drive
        self.activation = ACTIVATIONS[activation]
        self.strength = nn.Parameter(torch.zeros(shape))
        self.earlier = nn.ParameterList([nn.Parameter(torch.zeros(shape)) for _ in range(index)])
        self.spread: Spread | None = None
        self.narrow = self.sounds_elsewhere = False
        self.channels_last = site.is_linear
        self._site, self._drive_macs, self._shared = site, macs, shared
        self.macs = macs + (1 + index) * site.out_channels * site.positions

    def reads(self, input: Tensor, neuron: Tensor, mask: Tensor | None = None) -> Tensor:
        return input

    def activity(self, read: Tensor, earlier: Sequence[Tensor]) -> Tensor:
        drive = self.drive(read)
        for weight, activity in zip(self.earlier, earlier, strict=True):
            drive = drive + (weight * self._own(activity) if self.narrow else self._full(weight) * activity)
        activity = self.activation(drive)
        if self.spread is None:
            return activity
        if self.narrow:
            return self.spread.activity(activity, channels_last=self.channels_last)
        return activity * self.spread(torch.ones_like(self.strength)) if self.sounds_elsewhere else activity

    def felt(self, neuron: Tensor, error: Tensor) -> Tensor:
        return error

    def wake(self) -> None:
        pass

    def join(self, neuron: Tensor, activity: Tensor) -> Tensor:
        return neuron + self._full(self.strength) * activity

    def strengths(self) -> tuple[nn.Parameter, ...]:
        return (self.strength,)

    def serve(self, neurons: Sequence[int]) -> None:
        site, last, count = self._site, answering(self.drive), len(neurons)
        self.spread = Spread(neurons, site.out_channels).to(self.strength)
        self.strength = only(self.strength, neurons)
        self.earlier = nn.ParameterList([only(weight, neurons) for weight in self.earlier])
        self.narrow = self._pays(last, count)
        # tanh, relu and gelu of nothing are nothing
        silent = float(self.activation(torch.zeros((), device="cpu"))) == 0 and slices(last)
        self.sounds_elsewhere = not self.narrow and not silent
        if slices(last):
            narrow(last, neurons)
        if self.narrow:
            own = (self._drive_macs - self._shared) * count // site.out_channels
            inner, outer = count * (len(self.earlier) + site.out_channels), site.out_channels
            self.macs = self._shared + own + (inner + outer) * site.positions
        elif slices(last):
            self.drive = replaced(self.drive, Spreading(last, self.spread))

    def served(self) -> Tensor:
        return self._full(self.strength).detach().abs().flatten()

    def _pays(self, last: nn.Module, count: int) -> bool:
        """Whether the neurons that are left out save more than it takes to spread the others; at every size alike."""
        if getattr(last, "groups", 1) != 1:
            return False
        each = last.weight.numel() / self._site.out_channels  # type: ignore[operator]
        if self._site.is_transposed and self._site.geometry is not None and last is self.drive:
            each /= prod(self._site.geometry.stride)  # multiply-adds for one value of the output
        return (self._site.out_channels - count) * each > self._site.out_channels * count

    def _full(self, rows: Tensor) -> Tensor:
        return rows if self.spread is None else self.spread(rows)

    def _own(self, activity: Tensor) -> Tensor:
        """What an earlier dendrite tells the neurons that this one serves."""
        assert self.spread is not None
        return self.spread.own(activity, channels_last=self.channels_last)
