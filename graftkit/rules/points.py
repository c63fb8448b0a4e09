"""Takes a few positions of a site's maps, each with what the site reads there, in place of all."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor
from torch.nn import functional

from graftkit.core.sites import Geometry, Site


def point_of(site: Site) -> Site | None:
    """The site as one position sees it: what the kernel covers goes in, one value a neuron comes out.

    None where there is but one, or none can be taken alone: of a transposed convolution, or merged with the rows.
    """
    if site.positions == 1 or site.batch_dim is None or site.is_transposed:
        return None
    geometry = site.geometry
    if geometry is not None:
        once, none = (1,) * site.spatial_dims, (0,) * site.spatial_dims
        geometry = replace(geometry, stride=once, padding=none, dilation=once)
    return replace(
        site,
        geometry=geometry,
        positions=1,
        batch_dim=0,
        macs=site.macs // site.positions,
        input_shape=(-1, site.in_channels, *(geometry.kernel if geometry else ())),
        output_shape=(-1, site.out_channels, *(1 for _ in range(site.spatial_dims))),
    )


def fewer(site: Site, wanted: int) -> bool:
    """Whether so many positions, each with what the kernel covers, take less room than the maps."""
    kernel, stride = (prod(site.geometry.kernel), prod(site.geometry.stride)) if site.geometry else (1, 1)
    each = site.in_channels * kernel + site.out_channels
    return wanted * each < site.positions * (site.in_channels * stride + site.out_channels)


@dataclass(frozen=True)
class Points:
    """Positions of one batch, the same for each of its rows.

    Attributes:
        site: whose maps they are taken of.
        at: [dimensions, positions], where in the output they are.
    """

    site: Site
    at: Tensor

    @classmethod
    def draw(cls, site: Site, sizes: tuple[int, ...], wanted: int, generator: torch.Generator) -> Points:
        """So many positions of an output of these sizes, drawn without putting back."""
        flat = torch.randperm(prod(sizes), generator=generator)[:wanted].sort().values
        return cls(site, torch.stack(torch.unravel_index(flat, sizes)))

    def inputs(self, input: Tensor) -> Tensor:
        """[rows * positions, in_channels, *kernel], or [rows * positions, in_channels] of a Linear."""
        geometry = self.site.geometry
        if geometry is None:
            return self.values(input)
        margins = [side for pair in reversed(geometry.margins()) for side in pair]
        return self._taken(functional.pad(input, margins), geometry)

    def values(self, output: Tensor) -> Tensor:
        """What is there in a map of the output's shape: [rows * positions, out_channels], and a 1 a dimension."""
        if self.site.geometry is None:
            first = output.movedim(self.site.batch_dim or 0, 0)
            return first[(slice(None), *self.at)].flatten(0, 1)
        taken = output[(slice(None), slice(None), *self.at)].movedim(2, 1).flatten(0, 1)
        return taken.reshape(*taken.shape, *(1 for _ in self.at))

    def _taken(self, padded: Tensor, geometry: Geometry) -> Tensor:
        index: list[Tensor] = []
        dims = len(geometry.kernel)
        for dim, (k, s, d) in enumerate(zip(geometry.kernel, geometry.stride, geometry.dilation, strict=True)):
            places = self.at[dim].unsqueeze(1) * s + torch.arange(k) * d  # [positions, k]
            index.append(places.reshape(len(places), *(k if other == dim else 1 for other in range(dims))))
        where: tuple[slice | Tensor, ...] = (slice(None), slice(None), *index)
        return padded[where].movedim(2, 1).flatten(0, 1)
