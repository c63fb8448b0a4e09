"""Reads what is to be compressed, and says what of it may shrink."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from torch import nn

from graftkit import api, preflight, pruning, sources
from graftkit.compressing.asked import Asked
from graftkit.contracts import Data, LoadedModel, Observer
from graftkit.core.errors import PruningError
from graftkit.pruning import Kept, Width
from graftkit.reopening import input_shape
from graftkit.request import anchored_data
from graftkit.training import DEFAULT_LOSS, seeded, usual_metric


@dataclass(frozen=True, eq=False)
class Opened:
    """What is compressed: as it was read, its data, and what may shrink.

    Attributes:
        loaded: with the module, which stays as it is.
        rows: its data.
        loss, metric: their names.
        widths, kept: what may shrink, and what may not, with the reason.
        notes: what the user has to know.
    """

    loaded: LoadedModel
    rows: Data
    loss: str
    metric: str
    widths: tuple[Width, ...]
    kept: tuple[Kept, ...]
    notes: tuple[str, ...]

    @property
    def module(self) -> nn.Module:
        assert isinstance(self.loaded.model, nn.Module)
        return self.loaded.model


def opened(asked: Asked, observer: Observer) -> Opened:
    """Read model and data. Raises PruningError where the source has no modules, or nothing in them may shrink."""
    request = asked.request
    observer.on_stage("reading")
    with seeded(request.settings.seed):  # an architecture without weights draws some
        loaded = preflight.single_precision(sources.load(request.source))
    if not isinstance(loaded.model, nn.Module) or not _layers(loaded.model):
        raise PruningError(
            f"{request.source.spec} is a graph whose operators hold weights themselves; channels are pruned in layers,"
            " so give the module: a pickle, or weights with --arch"
        )
    rows = api.load_data(request.data, seed=request.settings.seed, input_shape=input_shape(loaded))
    loss = request.loss or DEFAULT_LOSS[rows.labels]
    preflight.check_shapes(loaded, rows, request.data)
    observer.on_stage("finding what can be pruned")
    widths, kept = pruning.widths(loaded.model, rows.example())
    if not widths:
        first = f" ({kept[0].name}: {kept[0].reason})" if kept else ""
        raise PruningError(f"nothing of {loaded.name} can be pruned{first}")
    notes = (*loaded.warnings, *rows.warnings, *(f"not pruned: {one.name}: {one.reason}" for one in kept))
    for line in notes:
        observer.on_warning(line)
    return Opened(loaded, rows, loss, request.metric or usual_metric(loss, rows.labels), widths, kept, notes)


def _layers(module: nn.Module) -> bool:
    return any(isinstance(layer, nn.modules.conv._ConvNd | nn.Linear) for layer in module.modules())


def facts_of(asked: Asked, opened: Opened) -> Mapping[str, Any]:
    """What source.json says."""
    told = asked.request.to_json()["source"]
    return {
        "source": told["spec"],
        **{name: told[name] for name in ("weights", "arch", "arch_args", "allow", "part")},
        "output": asked.request.output,
        "dynamic": asked.request.dynamic,
        "sha256": opened.loaded.provenance.get("sha256"),
        "provenance": dict(opened.loaded.provenance),
        "data": anchored_data(asked.request.data),
        "seed": asked.request.settings.seed,
        "loss": opened.loss,
        "metric": opened.metric,
        "graftkit": version("graftkit"),
    }
