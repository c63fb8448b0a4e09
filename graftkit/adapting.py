"""Dendrites apart from their base: a run's into a file of their own, and such a file onto a base from a model file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from graftkit import api, reopening, sources
from graftkit.contracts import Data, Metric, SourceRequest
from graftkit.core.dendrite_files import DendriteFileRecord, Score, Scores
from graftkit.core.errors import RunError
from graftkit.dendrite_files import base_sha256, load_dendrites, opened, record_of, save_dendrites
from graftkit.model import GraftedModel
from graftkit.run_folder import METRICS, RunFolder, is_run
from graftkit.training import usual_metric


def save_run(run: Path, out: Path, *, trust: bool = False, allow: tuple[str, ...] = ()) -> DendriteFileRecord:
    """Write the dendrites of a run whose base stood still as one file; returns what is in it.

    Raises:
        RunError: it is no run, it shipped no dendrites, or it trained its base; then nothing is written.
        SourceError, DataError: its model or data cannot be read again.
    """
    if not is_run(run):
        raise RunError(f"{run} is not a run's folder")
    folder = RunFolder(run)
    if not folder.read_plan().grafts:
        raise RunError(f"{run} ships a model without dendrites, so there are none to save")
    model, _, _ = reopening.open_given(run, trust=trust, allow=allow)
    given, before = base_sha256(model), _base(model)
    reopening.put_back(model, run)
    if base_sha256(model) != given:
        raise RunError(_trained(run, before, _base(model)))
    save_dendrites(model, out, scores=_scores(folder))
    with opened(out) as file:
        return record_of(file)


def open_base(
    request: SourceRequest, dendrites: Path, *, data: str | None, output: str | None, dynamic: str
) -> tuple[GraftedModel, Data | None, Metric | None, Mapping[str, Any]]:
    """A base with dendrites, each from its file; rows and their usual metric, if data are named; and facts.

    Raises SourceError, PlanError, TraceError, DataError.
    """
    with opened(dendrites):
        pass  # what is wrong with it is told before a model is read
    loaded = sources.load(request)
    rows = None if data is None else api.load_data(data, input_shape=reopening.input_shape(loaded))
    example = None if rows is None else rows.example()
    model = load_dendrites(loaded, dendrites, example, output=output, dynamic=dynamic)
    facts: dict[str, Any] = {"sha256": loaded.provenance.get("sha256"), "metric": None}
    if rows is None:
        return model, None, None, facts
    facts["metric"] = usual_metric(None, rows.labels)
    return model, rows, api.metric_for(None, rows), facts


def _base(model: GraftedModel) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.base.state_dict().items()}


def _trained(run: Path, before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> str:
    """Why a run's dendrites are nothing without the base that learned with them."""
    other = [name for name, tensor in before.items() if not torch.equal(tensor, after[name])]
    which = f"{len(other)} of its {len(before)} tensors are others, {other[0]} first" if other else "in its signs"
    return (
        f"{run} trained its base, too ({which}), so its dendrites are nothing without it; `graftkit augment"
        " --freeze-base` trains dendrites alone"
    )


def _scores(folder: RunFolder) -> Scores | None:
    """What the run measured, if it came that far."""
    if not (folder.path / METRICS).is_file():
        return None
    told = folder.read_json(METRICS)
    try:
        given, grafted = (Score(told[row]["validation"], told[row]["test"]) for row in ("baseline", "grafted"))
        return Scores(str(told["metric"]), given, grafted)
    except (KeyError, TypeError) as error:
        raise RunError(f"{folder.path / METRICS} is broken: {error!r}") from None
