"""Costs that are measured on ONNX files: a whole model with and without dendrites, or one of its sites by itself."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from graftkit import surgery, tracing
from graftkit.core.errors import TraceError
from graftkit.core.sites import Site
from graftkit.costs.built import first, serving
from graftkit.costs.cost import Counts, Prices
from graftkit.dendrites import build_dendrite
from graftkit.model import GraftedModel, SiteDendrites, TracedModel
from graftkit.plan import Graft
from graftkit.shipping import one_row, row_of, to_onnx


@dataclass(frozen=True)
class Pair:
    """A model without and with dendrites as ONNX files, and one row of inputs for both."""

    before: bytes
    after: bytes
    inputs: Mapping[str, np.ndarray]


def plain(model: GraftedModel) -> Pair:
    """The model as it stands, twice."""
    written = to_onnx(model).SerializeToString()
    return Pair(written, written, one_row(model))


def with_grafts(
    model: GraftedModel, grafts: Sequence[Graft], *, before: bytes | None = None, row: Tensor | None = None
) -> Pair:
    """The model as it stands, and with these grafts, whose strengths are random; it is left as it was.

    Args:
        model, grafts: what to write.
        before: the model as it stands, where it is written already.
        row: what its only input is for one row of data, where that is not the first of its example.
    """
    inputs = one_row(model) if row is None else {model.traced.signature.input_names[0]: row.numpy()}
    before = before or to_onnx(model).SerializeToString()
    plan = model.plan
    surgery.graft(model, grafts, build_dendrite, seed=0)
    try:
        for key in dict.fromkeys(graft.site for graft in grafts):
            _sound(model, key, len(plan.at(key)))
        return Pair(before, to_onnx(model).SerializeToString(), inputs)
    finally:
        surgery.truncate(model, plan)


@dataclass(frozen=True)
class _Bench:
    """Where a site's dendrites are measured: the site by itself, or the model where it cannot be traced alone."""

    model: GraftedModel
    site: str
    before: bytes
    row: Tensor | None


class Measured:
    """What costs that are measured on files share; each says how much more a file with dendrites has."""

    def more(self, pair: Pair) -> float:
        """What the second file has beyond the first."""
        raise NotImplementedError

    def added(self, model: GraftedModel, grafts: Sequence[Graft]) -> float:
        """What the grafts add to the whole model."""
        return self.more(with_grafts(model, grafts))

    def prices(self, model: GraftedModel, grafts: Sequence[Graft], counts: Counts) -> Prices:
        """For each graft what it adds to its site alone where it serves so many neurons; sites alike are measured once.

        Measured are one neuron, all, and the numbers between which a branch stops being narrow; others lie on lines.
        """
        seen = _seen(model, [graft.site for graft in grafts])
        benches: dict[Hashable, _Bench] = {}
        known: dict[Hashable, float] = {}

        def price(graft: Graft, neurons: int) -> float:
            site = model.traced.site(graft.site)
            shape = (site.operator, site.geometry, site.out_channels, tuple(seen[site.key].shape))
            if shape not in benches:
                benches[shape] = _bench(model, site, seen[site.key])
            asked = (shape, graft.kind, graft.options, neurons)
            if asked not in known:
                bench = benches[shape]
                one = replace(first(graft, neurons, site.out_channels), site=bench.site, mask=None)
                known[asked] = self.more(with_grafts(bench.model, [one], before=bench.before, row=bench.row))
            return known[asked]

        found = []
        for graft, wanted in zip(grafts, counts, strict=True):
            ends = _ends(model, graft, wanted)
            found.append(np.interp(wanted, ends, [price(graft, n) for n in ends]).tolist())
        return found


def _ends(model: GraftedModel, graft: Graft, wanted: Sequence[int]) -> list[int]:
    """The numbers of neurons to measure, rising."""
    built = serving(model, graft, wanted)
    narrow = [n for n, dendrite in zip(wanted, built, strict=True) if getattr(dendrite, "narrow", False)]
    beyond = [n for n in wanted if n > narrow[-1]][:1] if narrow else []
    return sorted({wanted[0], *narrow[-1:], *beyond, wanted[-1]})


def _bench(model: GraftedModel, site: Site, row: Tensor) -> _Bench:
    try:
        alone = surgery.empty(_alone(site, row))
    except TraceError:  # what it reads has no rows, for instance
        return _Bench(model, site.key, to_onnx(model).SerializeToString(), None)
    return _Bench(alone, alone.traced.sites[0].key, to_onnx(alone).SerializeToString(), row)


def _sound(model: GraftedModel, key: str, first: int) -> None:
    """Give the dendrites of a site from the `first` on strengths: silent ones would be folded away."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for dendrite in model.at(key).members()[first:]:
            for p in dendrite.strengths():
                p.copy_(torch.rand(p.shape, generator=generator) + 0.5)


def _seen(model: GraftedModel, sites: Sequence[str]) -> dict[str, Tensor]:
    """What each site reads for one row of the example."""
    plan, found = model.plan, dict[str, Tensor]()
    opened = [key for key in dict.fromkeys(sites) if key not in plan.sites()]
    surgery.open_sites(model, [Graft(key, "none") for key in opened])
    handles = [model.at(key).register_forward_pre_hook(_recorder(key, found)) for key in dict.fromkeys(sites)]
    training = model.training
    device = next(model.parameters()).device
    ports = model.traced.signature.inputs
    try:
        with torch.no_grad():
            rows = [row_of(x, p.shape) for x, p in zip(model.traced.inputs, ports, strict=True)]
            model.eval()(*(row.to(device) for row in rows))
    finally:
        for handle in handles:
            handle.remove()
        model.train(training)
        surgery.truncate(model, plan)
    return found


def _recorder(key: str, found: dict[str, Tensor]) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def record(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        assert isinstance(module, SiteDendrites)
        found[key] = args[0].detach().cpu().float().clone()

    return record


def _alone(site: Site, row: Tensor) -> TracedModel:
    """A site of the same shape as a model of its own, with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(_operator(site), nn.ReLU()).eval()
    return tracing.trace_module(module, torch.cat([row, row]), name=site.key)


def _operator(site: Site) -> nn.Module:
    geometry = site.geometry
    if geometry is None:
        return nn.Linear(site.in_channels, site.out_channels)
    kinds: tuple[Any, ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    further: dict[str, Any] = {}
    if site.is_transposed:
        kinds = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
        further = {"output_padding": geometry.output_padding}
    made: nn.Module = kinds[site.spatial_dims - 1](
        site.in_channels,
        site.out_channels,
        geometry.kernel,
        stride=geometry.stride,
        padding=geometry.padding,
        dilation=geometry.dilation,
        groups=geometry.groups,
        **further,
    )
    return made
