"""The folder of a compression as a model: what it was made from, with the shapes and weights that are left."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import nn

from graftkit import pruning
from graftkit.contracts import LoadedModel, SourceRequest
from graftkit.core.errors import RunError, SourceError
from graftkit.sources.files import sha256_of_all

_SOURCE, _SHAPES, _PLAN = "source.json", "pruned.json", "plan.json"
_WEIGHTS, _STATE = "checkpoint/model.safetensors", "checkpoint/state.json"
_BASE = "base."  # before the names of the model's own tensors


def is_compressed(path: Path) -> bool:
    """Whether a path is the folder of a compression."""
    return (path / _SHAPES).is_file() and (path / _SOURCE).is_file()


def load_compressed(request: SourceRequest, load: Callable[[SourceRequest], LoadedModel]) -> LoadedModel:
    """The pruned model; `load` reads the one that it was made from. Raises SourceError."""
    folder = Path(request.spec)
    if request.weights or request.arch or request.arch_args:
        raise SourceError(f"{folder} says itself what it was made from; leave out --weights, --arch and --arch-args")
    facts, shapes, plan = (_json(folder / name) for name in (_SOURCE, _SHAPES, _PLAN))
    if plan.get("grafts"):
        raise SourceError(
            f"{folder} has dendrites, and only a model without any can be taken as one; compress it with --no-dendrites"
        )
    try:
        given = SourceRequest(
            spec=facts["source"],
            weights=Path(facts["weights"]) if facts["weights"] else None,
            trust=request.trust,
            arch=facts["arch"],
            arch_args=tuple(facts["arch_args"].items()),
            allow=(*facts["allow"], *request.allow),
            part=facts["part"],
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise SourceError(f"{folder / _SOURCE} is broken: {error!r}") from None
    loaded = load(given)
    if loaded.provenance.get("sha256") != facts.get("sha256"):
        raise SourceError(f"{facts['source']} has changed since {folder} was made; its sha256 is another one")
    if not isinstance(loaded.model, nn.Module):
        raise SourceError(f"{facts['source']} holds no module any more, as it did when {folder} was made")
    _fill(loaded.model, shapes, folder)
    hashed = sha256_of_all([folder / name for name in (_SHAPES, _WEIGHTS)])
    provenance = {"path": str(folder), "format": "compressed", "sha256": hashed}
    return replace(loaded, provenance=provenance, name=folder.resolve().name)


def _fill(module: nn.Module, shapes: Any, folder: Path) -> None:
    """Shapes and weights, in place."""
    try:
        pruning.apply(module, pruning.Shapes.from_json(shapes))
        tensors = safetensors.torch.load((folder / _WEIGHTS).read_bytes())
        aliases = _json(folder / _STATE)["aliases"]
        named = {**tensors, **{name: tensors[first] for name, first in aliases.items()}}
        own = {name.removeprefix(_BASE): tensor for name, tensor in named.items() if name.startswith(_BASE)}
        told = module.load_state_dict(own, strict=False)
    except (OSError, KeyError, AttributeError, RuntimeError, RunError, safetensors.SafetensorError) as error:
        text = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise SourceError(f"{folder} cannot be read as a pruned model: {text[:200]}") from None
    if told.unexpected_keys:
        raise SourceError(f"{folder} has weights that its model does not know: {told.unexpected_keys[0]}")
    lacking = sorted(set(told.missing_keys) & set(shapes["tensors"]))
    if lacking:  # of others the source's own are right: no graph reads them
        raise SourceError(f"{folder} lacks weights of its model: {lacking[0]}")


def _json(path: Path) -> Any:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise SourceError(f"{path} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise SourceError(f"{path} is broken: it holds no object")
    return found
