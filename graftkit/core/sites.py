"""What is known of a place where dendrites can be grafted: a Linear or Conv call, as plain values."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from graftkit.core.errors import PlanError, did_you_mean


@dataclass(frozen=True, slots=True)
class Geometry:
    """How a convolution's kernel lies on its input; every tuple has one entry a spatial dimension.

    `padding` is either one number a dimension, added on both sides, or "same" or "valid".
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...] | str
    dilation: tuple[int, ...]
    groups: int
    output_padding: tuple[int, ...] = ()

    def margins(self) -> tuple[tuple[int, int], ...]:
        """Zeros added (before, after) each spatial dimension."""
        if self.padding == "valid":
            return tuple((0, 0) for _ in self.kernel)
        if self.padding == "same":
            spans = [d * (k - 1) for k, d in zip(self.kernel, self.dilation, strict=True)]
            return tuple((span // 2, span - span // 2) for span in spans)
        return tuple((int(p), int(p)) for p in self.padding)


@dataclass(frozen=True, slots=True)
class Site:
    """One Linear or Conv call of a traced model.

    Attributes:
        key: the call's name for life: its module path, and `:ordinal` where a module makes several calls.
        path: the module path alone ("layer1.0.conv1"); empty for a call in the model's own `forward`.
        operator: "linear", "conv1d", "conv2d", "conv3d" or "conv_transpose1d" to "conv_transpose3d".
        in_channels: features (Linear) or channels (Conv) that one call reads.
        out_channels: how many neurons the site has.
        geometry: the kernel's geometry, None for Linear.
        weight: the name of the weight parameter.
        parameters: numbers in weight and bias.
        macs: multiply-adds for one row of data.
        input_shape: shape of what the call reads, batch included (-1 where it is dynamic).
        output_shape: shape of what the call writes, batch included (-1 where it is dynamic).
        positions: how many values one neuron gives for one row of data.
        batch_dim: which dimension of the output counts rows; None where rows and positions are merged.
        followed_by: what happens to the output next, in order, as far as it is a plain chain: batch
            norm and activation ("batch_norm", "relu").
        feeds_output: whether the output reaches the model's output with no other site in between.
    """

    key: str
    path: str
    operator: str
    in_channels: int
    out_channels: int
    geometry: Geometry | None
    weight: str
    parameters: int
    macs: int
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    positions: int
    batch_dim: int | None
    followed_by: tuple[str, ...] = ()
    feeds_output: bool = False

    @property
    def is_linear(self) -> bool:
        return self.operator == "linear"

    @property
    def is_transposed(self) -> bool:
        return self.operator.startswith("conv_transpose")

    @property
    def spatial_dims(self) -> int:
        """How many spatial dimensions the operator has; 0 for Linear."""
        return len(self.geometry.kernel) if self.geometry else 0

    @property
    def channel_dim(self) -> int:
        """Which dimension of the output holds the neurons: 1 for Conv, the last for Linear."""
        return len(self.output_shape) - 1 if self.is_linear else 1

    @property
    def is_sequence(self) -> bool:
        """Whether it is a Linear over several positions, tokens for instance."""
        return self.is_linear and self.positions > 1


@dataclass(frozen=True, slots=True)
class SkippedCall:
    """A call with weights that cannot be a site, and why."""

    key: str
    operator: str
    reason: str


def select_sites(sites: Iterable[Site], patterns: Sequence[str]) -> tuple[Site, ...]:
    """The sites whose key or module path matches the glob patterns, in their own order.

    A pattern that starts with `!` takes matching sites out again; if all do, they are taken out of all
    sites. Raises PlanError for a pattern that matches nothing, with the closest names.
    """
    known = tuple(sites)
    for pattern in patterns:
        if not any(_matches(site, pattern.removeprefix("!")) for site in known):
            names = [site.key for site in known]
            raise PlanError(
                f"--sites {pattern!r} matches none of the {len(names)} sites;"
                f" `graftkit inspect` lists them.{did_you_mean(pattern.removeprefix('!'), names)}"
            )
    wanted = [p for p in patterns if not p.startswith("!")] or ["*"]
    unwanted = [p[1:] for p in patterns if p.startswith("!")]
    return tuple(
        site
        for site in known
        if any(_matches(site, p) for p in wanted) and not any(_matches(site, p) for p in unwanted)
    )


def is_named(site: Site, patterns: Sequence[str]) -> bool:
    """Whether a pattern that includes matches the site; what is only not excluded was not named."""
    return any(_matches(site, p) for p in patterns if not p.startswith("!"))


def _matches(site: Site, pattern: str) -> bool:
    return fnmatch.fnmatchcase(site.key, pattern) or fnmatch.fnmatchcase(site.path, pattern)
