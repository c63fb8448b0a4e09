"""Opens a run's folder again: its trained model, its data and its metric."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from graftkit import api, pruning, sources, surgery
from graftkit.contracts import Data, LoadedModel, Metric, SourceRequest
from graftkit.core.errors import DataError, RunError, SourceError
from graftkit.dendrites import build_dendrite
from graftkit.model import GraftedModel
from graftkit.run_folder import SHAPES, SOURCE, RunFolder
from graftkit.training import seeded

_CONVOLUTIONS = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)


def open_run(
    path: Path, *, trust: bool, allow: tuple[str, ...] = ()
) -> tuple[GraftedModel, Data, Metric, Mapping[str, Any]]:
    """A run's trained model, its data and metric, and its source.json. Raises RunError, SourceError."""
    model, rows, facts = open_given(path, trust=trust, allow=allow)
    put_back(model, path)
    try:
        return model, rows, api.metric_for(facts["metric"], rows), facts
    except DataError as error:
        raise DataError(f"{_made_from(path, facts)}: {error}") from error


def open_given(
    path: Path, *, trust: bool, allow: tuple[str, ...] = (), pruned: bool = True, shapes: Any = None
) -> tuple[GraftedModel, Data, Mapping[str, Any]]:
    """The model that a run was given, its data, and its source.json.

    Of a compression that is what pruning left, with the weights that it ended with, for dendrites to be put back on;
    the model as it was before where not `pruned`. With `shapes`, JSON such as pruned.json, those of another network of
    the run, for its weights to be put back.

    Raises RunError, SourceError.
    """
    if not path.is_dir():
        raise RunError(f"{path} is not a run's folder")
    facts = RunFolder(path).read_json(SOURCE)
    try:
        with seeded(facts["seed"]):  # an architecture without weights draws some
            loaded = sources.load(_source_of(facts, trust=trust, allow=allow))
        if loaded.provenance.get("sha256") != facts["sha256"]:
            raise SourceError(f"{facts['source']} has changed since {path} was made; its sha256 is another one")
        if shapes is not None:
            _shape(loaded, shapes)
        elif pruned and _shapes(path).is_file():
            _shape(loaded, RunFolder(path).read_json(SHAPES))
        rows = api.load_data(facts["data"], seed=facts["seed"], input_shape=input_shape(loaded))
        traced = api.trace(loaded, rows.example(), output=facts.get("output"), dynamic=facts.get("dynamic", "auto"))
    except (SourceError, DataError) as error:
        raise type(error)(f"{_made_from(path, facts)}: {error}") from error
    model = surgery.empty(traced)
    if (
        pruned and shapes is None and _shapes(path).is_file()
    ):  # the weights that channels were taken from are others now
        state = RunFolder(path).read_checkpoint()
        model.restore({name: tensor for name, tensor in state.items() if name.startswith("base.")})
    return model, rows, facts


def put_back(model: GraftedModel, path: Path) -> None:
    """Make the given model of a run, in place, the trained one. Raises RunError."""
    folder = RunFolder(path)
    try:
        surgery.put_back(model, folder.read_plan(), folder.read_checkpoint(), build_dendrite)
    except RuntimeError as error:  # torch's word for names or shapes that do not fit
        raise RunError(f"{path}: the checkpoint does not fit the plan: {str(error).splitlines()[0]}") from None


def _shapes(path: Path) -> Path:
    return path / SHAPES


def _shape(loaded: LoadedModel, shapes: Any) -> None:
    """Give the module, in place, the shapes of what a compression made of it. Raises RunError."""
    if isinstance(loaded.model, torch.nn.Module):
        pruning.apply(loaded.model, pruning.Shapes.from_json(shapes))


def _made_from(path: Path, facts: Mapping[str, Any]) -> str:
    return f"{path} was made from {facts['source']} and {facts['data']}"


def _source_of(facts: Mapping[str, Any], *, trust: bool, allow: tuple[str, ...]) -> SourceRequest:
    """What was read when the run was made."""
    return SourceRequest(
        spec=facts["source"],
        weights=Path(facts["weights"]) if facts["weights"] else None,
        trust=trust,
        arch=facts.get("arch"),
        arch_args=tuple(facts.get("arch_args", {}).items()),
        allow=(*facts.get("allow", ()), *allow),
        part=facts.get("part"),
    )


def input_shape(loaded: LoadedModel) -> tuple[int, ...] | None:
    """What the model takes, -1 where any size will do: known from its example, or from its first convolution."""
    if isinstance(loaded.model, ExportedProgram):
        inputs, _ = loaded.model.example_inputs or ((), {})
        return (-1, *inputs[0].shape[1:]) if inputs else None
    convolutions = (module for module in loaded.model.modules() if isinstance(module, _CONVOLUTIONS))
    first = next(convolutions, None)
    return None if first is None else (-1, first.in_channels, *(-1 for _ in first.kernel_size))
