"""Correlations between dendrites' activities and neurons' errors, in one batch and over many."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from graftkit import ranks
from graftkit.core.sites import Site

_TINY = 1e-12


def each_neuron(tensor: Tensor, channel_dim: int) -> Tensor:
    """[neurons, rows and positions]."""
    return tensor.movedim(channel_dim, 0).flatten(1)


def correlation(activity: Tensor, error: Tensor) -> Tensor:
    """Pearson's r for each neuron, [neurons], of two tensors [neurons, rows and positions]."""
    return correlations([(activity, error)])[0]


def correlations(pairs: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """`correlation` of each pair. Of several processes each has some of the rows, and r is that over all of them."""
    sizes = [len(error) for _, error in pairs]
    sums = [torch.stack([a.detach().sum(1), e.sum(1), torch.full_like(e[:, 0], e.shape[1])]) for a, e in pairs]
    means = torch.split(ranks.added(torch.cat(sums, 1)), sizes, 1)
    # that the mean moves with the activity changes nothing: what is multiplied with it sums up to zero
    centred = [(a - (m[0] / m[2])[:, None], e - (m[1] / m[2])[:, None]) for (a, e), m in zip(pairs, means, strict=True)]
    # errors are tiny at a converged layer: bring them to unit length before anything is squared
    largest = torch.split(ranks.largest(torch.cat([e.abs().amax(1) for _, e in centred])), sizes)
    products = []
    for (v, e), most in zip(centred, largest, strict=True):
        unit = e / (most[:, None] + torch.finfo(e.dtype).tiny)
        products.append(torch.stack([(v * unit).sum(1), (v * v).sum(1), (unit * unit).sum(1)]))
    found = torch.split(ranks.added(torch.cat(products, 1)), sizes, 1)
    return [ve / (vv * ee + _TINY).sqrt() for ve, vv, ee in found]


class PairedSums:
    """Pearson's r for each neuron over many batches, beside `shuffles` pairings with other rows' errors.

    A pairing gives every row the errors of a row some way further in its batch, so positions within a
    row, which are alike, stay together.
    """

    def __init__(self, site: Site, *, shuffles: int):
        self.site, self.shuffles = site, shuffles
        self.count = 0
        self.sums = torch.zeros(4, site.out_channels, dtype=torch.float64)  # v, e, v*v, e*e
        self.products = torch.zeros(1 + shuffles, site.out_channels, dtype=torch.float64)

    def add(self, activity: Tensor, error: Tensor, *, rows: int) -> None:
        """Count one batch of so many rows: two tensors of the site's output shape."""
        dim = self.site.batch_dim if self.site.batch_dim is not None else 0
        each = max(1, error.shape[dim] // rows)  # more than one where positions are merged with the rows
        v = self._flat(activity)
        e = self._flat(error)
        self.count += v.shape[1]
        self.sums += torch.stack([v.sum(1), e.sum(1), (v * v).sum(1), (e * e).sum(1)])
        for index in range(1 + self.shuffles):
            shift = round(index * rows / (1 + self.shuffles)) * each
            self.products[index] += (v * self._flat(error.roll(shift, dim))).sum(1)

    def r(self) -> Tensor:
        """[1 + shuffles, neurons]; the first row is the true pairing."""
        if not self.count:
            return torch.zeros_like(self.products)
        v, e, vv, ee = self.sums
        spread = ((vv - v * v / self.count) * (ee - e * e / self.count)).clamp(min=0).sqrt()
        r = (self.products - v * e / self.count) / spread
        return torch.nan_to_num(r, nan=0.0, posinf=0.0, neginf=0.0)

    def strength(self) -> float:
        """Mean |r| over neurons."""
        return float(self.r()[0].abs().mean())

    def chance(self) -> float:
        """Mean over neurons of the largest |r| of a shuffled pairing."""
        return float(self.r()[1:].abs().amax(0).mean())

    def beats_chance(self) -> Tensor:
        """Which neurons have a larger |r| than any of their shuffled pairings, [neurons] of bool.

        None has unless the mean |r| over neurons is larger than that of any shuffled pairing, too.
        """
        r = self.r().abs()
        together = r[0].mean() > r[1:].mean(1).amax()
        return (r[0] > r[1:].amax(0)) & together

    def _flat(self, tensor: Tensor) -> Tensor:
        return each_neuron(tensor.detach(), self.site.channel_dim).cpu().double()
