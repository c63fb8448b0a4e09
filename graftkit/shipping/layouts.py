"""Which layout each grafted site is written in: by name, by rule, or by what measured fastest in a runtime."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx

from graftkit.core.errors import ExportError
from graftkit.folding import ONE_FILE, Written
from graftkit.folding.layouts import BRANCHES, LAYOUTS, arrange, grafted_sites, portable
from graftkit.folding.layouts.alone import Alone, alone, likeness, showing
from graftkit.runtimes import RUNTIMES
from graftkit.timing import ratio, timed

AUTO, PORTABLE = "auto", "portable"
CHOICES = (PORTABLE, AUTO, *LAYOUTS)
_ROUNDS = 90
_FASTER = 0.98  # of the time of branches: a smaller gain is none
_AS_FOUND = "as found"
_LARGE = 2**24  # bytes of weights of a site; such a one is not measured: what is large has no idle vector units


@dataclass(frozen=True)
class Target:
    """Where a file will run.

    Attributes:
        runtime: a name in RUNTIMES, in which layouts are measured where they are.
        threads: of that runtime.
    """

    runtime: str = "onnxruntime"
    threads: int = 1


def layouts_for(layout: str, model: Written, row: Mapping[str, np.ndarray], target: Target) -> Mapping[str, str]:
    """By site key: the layout of each grafted site that is not written as branches.

    Args:
        layout: "portable", "auto", or a name in LAYOUTS for all sites.
        model: folded, its sites written as branches.
        row: one row of inputs by name, to measure with.
        target: where to measure.

    Raises:
        ExportError: there is no such layout.
        RuntimeMissingError: the runtime is not there.
    """
    if layout == PORTABLE:
        return portable(model.proto)
    if layout == AUTO:
        return _confirmed(model, _measured(model, row, target), row, target)
    if layout not in LAYOUTS:
        raise ExportError(f"unknown layout {layout!r}; there are {', '.join(CHOICES)}")
    return {} if layout == BRANCHES else {site.site: layout for site in grafted_sites(model.proto.graph)}


def _confirmed(
    model: Written, found: Mapping[str, str], row: Mapping[str, np.ndarray], target: Target
) -> Mapping[str, str]:
    """What was found for sites by themselves, unless branches are faster in the model as a whole."""
    if not found:
        return found
    before = model.whole()
    after = onnx.ModelProto.FromString(before.SerializeToString())
    arrange(after, found)
    return found if _winner({_AS_FOUND: after, BRANCHES: before}, target, row) == _AS_FOUND else {}


def _measured(model: Written, row: Mapping[str, np.ndarray], target: Target) -> dict[str, str]:
    """The fastest layout of each site by itself; sites alike are measured once."""
    if model.nbytes() > ONE_FILE:
        return {}
    whole = model.whole()
    sites = [alone(whole, site) for site in grafted_sites(whole.graph)]
    values = _values(whole, {name for site in sites for name in (*site.reads, *site.gives)} - row.keys(), row)
    best: dict[Hashable, str] = {}
    found = {}
    for site in sites:
        by_itself = site.model(whole, values)
        if by_itself.ByteSize() > _LARGE:
            continue
        key = likeness(by_itself)
        if key not in best:
            best[key] = _fastest(by_itself, site, values, target)
        found[site.site] = best[key]
    return {site: name for site, name in found.items() if name != BRANCHES}


def _values(model: onnx.ModelProto, names: Collection[str], row: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """What these values are for a row of inputs, and the inputs."""
    if not names:
        return row
    session = RUNTIMES.find("onnxruntime").open(showing(model, sorted(names)).SerializeToString(), threads=1)
    return {**row, **dict(zip(sorted(names), session(row), strict=True))}


def _fastest(model: onnx.ModelProto, site: Alone, values: Mapping[str, np.ndarray], target: Target) -> str:
    candidates = {BRANCHES: model}
    for name in LAYOUTS:
        other = onnx.ModelProto.FromString(model.SerializeToString())
        if arrange(other, {site.site: name}):
            candidates[name] = other
    return _winner(candidates, target, {name: values[name] for name in site.reads})


def _winner(candidates: Mapping[str, onnx.ModelProto], target: Target, feed: Mapping[str, np.ndarray]) -> str:
    """The fastest of those that the target runs; the first one, unless another takes clearly less time.

    Raises ExportError where the target does not run the first one.
    """
    runtime = RUNTIMES.find(target.runtime)
    files = {
        name: partial(runtime.open, model.SerializeToString(), threads=target.threads)
        for name, model in candidates.items()
    }
    seconds, troubles = timed(files, feed, rounds=_ROUNDS)
    first = next(iter(candidates))
    if first in troubles:
        raise ExportError(f"layouts cannot be measured in {target.runtime}: {troubles[first]}")
    ratios = {name: ratio(found, seconds[first]) for name, found in seconds.items()}
    faster = {name: found.median for name, found in ratios.items() if found.median < _FASTER and found.high < 1}
    return min(faster, key=faster.__getitem__, default=first)
