"""Builds the linear part of a dendrite in the shape of its site's operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn
from torch.nn import functional

from graftkit.core.sites import Geometry, Site

_CONVS: Mapping[str, Callable[..., nn.Module]] = {
    "conv1d": nn.Conv1d,
    "conv2d": nn.Conv2d,
    "conv3d": nn.Conv3d,
    "conv_transpose1d": nn.ConvTranspose1d,
    "conv_transpose2d": nn.ConvTranspose2d,
    "conv_transpose3d": nn.ConvTranspose3d,
}
POINTWISE: Mapping[int, Callable[..., nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def same_shape(site: Site, *, out_channels: int | None = None, groups: int | None = None) -> nn.Module:
    """A fresh operator like the site's own, with a bias; other output channels and groups if given."""
    channels = site.out_channels if out_channels is None else out_channels
    if site.geometry is None:
        return nn.Linear(site.in_channels, channels)
    geometry = site.geometry
    options = {"output_padding": geometry.output_padding} if site.is_transposed else {}
    return _CONVS[site.operator](
        site.in_channels,
        channels,
        geometry.kernel,
        stride=geometry.stride,
        padding=geometry.padding,
        dilation=geometry.dilation,
        groups=geometry.groups if groups is None else groups,
        **options,
    )


def mixing(site: Site, hidden: int) -> nn.Module:
    """From `hidden` units to the site's neurons at every position, without a bias."""
    if site.is_linear:
        return nn.Linear(hidden, site.out_channels, bias=False)
    return POINTWISE[site.spatial_dims](hidden, site.out_channels, 1, bias=False)


def answering(drive: nn.Module) -> nn.Module:
    """The operator of a drive whose outputs are the neurons'."""
    last = drive.tap if isinstance(drive, CentreTap) else getattr(drive, "mix", drive)
    assert isinstance(last, nn.Module)
    return last


def replaced(drive: nn.Module, last: nn.Module) -> nn.Module:
    """The drive with another operator in that place."""
    if answering(drive) is drive:
        return last
    setattr(drive, "tap" if isinstance(drive, CentreTap) else "mix", last)
    return drive


class CentreTap(nn.Module):
    """A convolution's centre tap alone: a 1x1 convolution over the inputs under the kernel's centre.

    With kernel k, stride s, dilation d and p zeros before, output position o reads input o*s - p + d*(k//2).
    """

    def __init__(self, site: Site, geometry: Geometry, *, out_channels: int | None = None, groups: int | None = None):
        super().__init__()
        before, after = [], []
        for k, d, (first, last) in zip(geometry.kernel, geometry.dilation, geometry.margins(), strict=True):
            before.append(first - d * (k // 2))
            after.append(last - d * (k - 1 - k // 2))
        symmetric = before == after and min(before) >= 0
        margins = [] if symmetric else list(zip(before, after, strict=True))
        # torch pads the last dimension first; a crop is a slice, for not every runtime pads by less than nothing
        pads = tuple(max(n, 0) for margin in reversed(margins) for n in margin)
        self.pad = pads if any(pads) else ()
        self.crop = tuple(slice(max(-first, 0), min(last, 0) or None) for first, last in margins)
        self.tap = POINTWISE[site.spatial_dims](
            site.in_channels,
            site.out_channels if out_channels is None else out_channels,
            1,
            stride=geometry.stride,
            padding=tuple(before) if symmetric else 0,
            groups=geometry.groups if groups is None else groups,
        )

    def forward(self, input: Tensor) -> Tensor:
        if self.pad:
            input = functional.pad(input, self.pad)
        if self.crop:
            input = input[(..., *self.crop)]
        tapped: Tensor = self.tap(input)
        return tapped
