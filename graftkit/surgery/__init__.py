"""Puts dendrites into both graphs of a grafted model, and takes them out again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, fx

from graftkit.contracts import Build, Dendrite
from graftkit.core.errors import PlanError, did_you_mean
from graftkit.core.sites import Site
from graftkit.model import GraftedModel, SiteDendrites, TracedModel, copied, slot
from graftkit.plan import Graft, GraftPlan
from graftkit.surgery.insert import insert_call, placeholder, remove_call
from graftkit.surgery.probe import unreached
from graftkit.switching import DENDRITES

__all__ = [
    "affordable",
    "blank",
    "check",
    "check_reached",
    "empty",
    "graft",
    "insert_all",
    "lost_grafts",
    "open_sites",
    "put_back",
    "truncate",
    "unreached",
    "without_weights",
]


def empty(traced: TracedModel) -> GraftedModel:
    """A grafted model without any dendrites, on copies of the traced graphs."""
    return GraftedModel(traced, copied(traced.train_graph), copied(traced.eval_graph))


def graft(model: GraftedModel, grafts: Iterable[Graft], build: Build, *, seed: int) -> None:
    """Insert dendrites in place, at zero strength, so that the outputs stay what they are.

    Fresh weights are drawn from `seed` alone. Raises PlanError for an unknown site, neuron or mask, and for
    a site whose earlier dendrites differ in `join`, `detach` or `mask`; then nothing was changed.
    """
    new = tuple(grafts)
    sites = check(model, new)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        places = [len(model.plan.at(g.site)) + _before(new, i) for i, g in enumerate(new)]
        built = [(g, _built(g, sites[g.site], place, build)) for g, place in zip(new, places, strict=True)]
    open_sites(model, new)
    like = next((p for p in model.base.parameters() if p.is_floating_point()), None)
    for one, dendrite in built:
        if like is not None:
            dendrite.to(device=like.device, dtype=like.dtype)
        dendrite.train(model.training)
        model.at(one.site).cascade.append(dendrite)
    model.plan = model.plan.with_grafts(new)


def _built(one: Graft, site: Site, index: int, build: Build) -> Dendrite:
    dendrite = build(one, site, index)
    if one.neurons is not None:
        dendrite.serve(one.neurons)
    return dendrite


def open_sites(model: GraftedModel, grafts: Iterable[Graft]) -> None:
    """Insert, in place, the calls of the sites' dendrites without any dendrite in them yet."""
    for one in grafts:
        if slot(one.site) not in model.dendrites:
            model.dendrites[slot(one.site)] = SiteDendrites(one.site, detach=one.detach)
            for graph in model.graphs:
                insert_call(graph, one)
    _recompile(model)


def truncate(model: GraftedModel, plan: GraftPlan) -> None:
    """Take out, in place, every dendrite grafted after `plan`, which must be a beginning of the model's plan."""
    if model.plan.grafts[: len(plan.grafts)] != plan.grafts:
        raise PlanError("the plan to go back to is not a beginning of the model's plan")
    for name, members in list(model.dendrites.items()):
        assert isinstance(members, SiteDendrites)
        keep = len(plan.at(members.site))
        del members.cascade[keep:]
        if keep == 0:
            for graph in model.graphs:
                remove_call(graph, members.site)
            del model.dendrites[name]
    _recompile(model)
    model.plan = plan


def put_back(model: GraftedModel, plan: GraftPlan, state: Mapping[str, Tensor], build: Build) -> None:
    """Make the model, in place, what it was when `state` was taken with `plan` grafted."""
    shared = 0
    for ours, theirs in zip(model.plan.grafts, plan.grafts, strict=False):
        if ours != theirs:
            break
        shared += 1
    truncate(model, GraftPlan(plan.grafts[:shared]))
    graft(model, plan.grafts[shared:], build, seed=0)
    model.restore(state)


def affordable(model: GraftedModel, grafts: Iterable[Graft], build: Build, limit: int | None) -> tuple[Graft, ...]:
    """The grafts, in order, with which the model keeps within `limit` parameters, the cheapest taken first."""
    new = tuple(grafts)
    if limit is None:
        return new
    costs = [sum(p.numel() for p in dendrite.parameters()) for dendrite in blank(model, new, build)]
    left = limit - model.parameter_count()
    taken: set[int] = set()
    for index in sorted(range(len(new)), key=lambda i: (costs[i], i)):
        if costs[index] <= left:
            left -= costs[index]
            taken.add(index)
    return tuple(graft for index, graft in enumerate(new) if index in taken)


def blank(model: GraftedModel, grafts: Iterable[Graft], build: Build) -> list[Dendrite]:
    """The dendrites that the grafts ask for, without weights and not grafted: to count what they would have."""
    new = tuple(grafts)
    sites = check(model, new)
    places = [len(model.plan.at(g.site)) + _before(new, i) for i, g in enumerate(new)]
    return [without_weights(g, sites[g.site], place, build) for g, place in zip(new, places, strict=True)]


def without_weights(graft: Graft, site: Site, index: int, build: Build) -> Dendrite:
    """The dendrite that a graft asks for, `index` being there before it, without weights."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return _built(graft, site, index, build)


def lost_grafts(model: GraftedModel, grafts: Iterable[Graft], build: Build) -> tuple[str, ...]:
    """The sites at which dendrites so grafted would never learn; the model is left as it was."""
    before, new = model.plan, tuple(grafts)
    graft(model, new, build, seed=0)
    try:
        return unreached(model, dict.fromkeys(one.site for one in new))
    finally:
        truncate(model, before)


def check_reached(model: GraftedModel, grafts: Iterable[Graft], build: Build) -> None:
    """Raise PlanError, naming the sites, where dendrites so grafted would never learn."""
    lost = lost_grafts(model, grafts, build)
    if lost:
        raise PlanError(
            f"no error at the output {model.traced.signature.output!r} reaches the dendrites at {', '.join(lost)};"
            f" leave them out with --sites {' '.join(f'!{site}' for site in lost[:3])}, or name another --output"
        )


def insert_all(graph: fx.GraphModule, plan: GraftPlan, dendrites: Mapping[str, SiteDendrites]) -> None:
    """Insert the calls of a whole plan into a fresh graph, in place; `dendrites` holds the modules by site."""
    modules = torch.nn.ModuleDict({slot(key): module for key, module in dendrites.items()})
    graph.add_module(DENDRITES, modules)
    for key in plan.sites():
        insert_call(graph, plan.at(key)[0])
    graph.recompile()


def _recompile(model: GraftedModel) -> None:
    for graph in model.graphs:
        graph.recompile()


def _before(grafts: tuple[Graft, ...], index: int) -> int:
    return sum(graft.site == grafts[index].site for graft in grafts[:index])


def check(model: GraftedModel, new: tuple[Graft, ...]) -> dict[str, Site]:
    """The model's sites by key; raises PlanError where the new grafts name others or contradict the old ones."""
    sites = {site.key: site for site in model.traced.sites}
    plan = model.plan.with_grafts(new)
    for key in plan.sites():
        if key not in sites:
            raise PlanError(f"there is no site {key!r} in {model.traced.name}.{did_you_mean(key, sites)}")
        if len({(g.join, g.detach, g.mask) for g in plan.at(key)}) > 1:
            raise PlanError(f"the dendrites at {key!r} must agree in join, detach and mask")
    for one in new:
        if one.mask is not None:
            placeholder(model.graphs[1], one.mask)
        count = sites[one.site].out_channels
        if any(not 0 <= neuron < count for neuron in one.neurons or ()):
            raise PlanError(f"the site {one.site!r} has neurons 0 to {count - 1}, but the graft names others")
        if one.neurons is not None and (not one.neurons or len(set(one.neurons)) < len(one.neurons)):
            raise PlanError(f"the graft at {one.site!r} names {'a neuron twice' if one.neurons else 'no neuron'}")
    return sites
