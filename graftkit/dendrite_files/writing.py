"""Writes a model's active dendrites, without their base, into one safetensors file."""

from __future__ import annotations

from importlib.metadata import version
from math import isfinite
from pathlib import Path

import safetensors.torch
from torch import Tensor

from graftkit.core.atomic import write_bytes
from graftkit.core.dendrite_files import Score, Scores
from graftkit.core.errors import PlanError
from graftkit.dendrite_files.facts import KEY, Facts
from graftkit.dendrite_files.hashes import base_sha256, tensors_sha256
from graftkit.model import GraftedModel, TracedModel


def save_dendrites(model: GraftedModel, path: str | Path, *, scores: Scores | None = None) -> Path:
    """Write the dendrites that are active as one safetensors file, for `load_dendrites`; returns its path.

    The file names the base as it stands now, by a hash: it is for dendrites that were trained while the base stood
    still, or for a base that is kept, too. A file that is there is replaced.

    Args:
        model: what `graft` or `load_dendrites` gave, or the `model` of a FitResult.
        path: where to write.
        scores: what was measured, for people to read.

    Raises:
        PlanError: the model has no dendrites, or some with numbers that are none.
        RunError: the file cannot be written.
    """
    if not model.plan.grafts:
        raise PlanError(f"{model.traced.name} has no dendrites to save; graft some, or set those that stand aside")
    tensors = _tensors(model)
    facts = Facts(
        graftkit=version("graftkit"),
        base=model.traced.name,
        base_sha256=base_sha256(model),
        plan=model.plan,
        sha256=tensors_sha256(tensors),
        signature=model.traced.signature,
        example=_example(model.traced),
        scores=None if scores is None else _finite(scores),
    )
    content = safetensors.torch.save(tensors, metadata={KEY: facts.to_text()})
    write_bytes(Path(path), content)
    return Path(path)


def _tensors(model: GraftedModel) -> dict[str, Tensor]:
    found = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in model.dendrites.state_dict().items()}
    for name, tensor in found.items():
        if not tensor.isfinite().all():
            raise PlanError(f"the dendrites of {model.traced.name} have numbers that are none, in {name}")
    return found


def _example(traced: TracedModel) -> tuple[tuple[int, ...], ...]:
    """The shapes it was traced with, a free number of rows being two."""
    ports = traced.signature.inputs
    batch = ports[0].shape[0] if ports and ports[0].shape else None
    rows = [isinstance(batch, str) and port.shape[:1] == (batch,) for port in ports]
    shapes = [tuple(tensor.shape) for tensor in traced.inputs]
    return tuple((2, *shape[1:]) if free else shape for shape, free in zip(shapes, rows, strict=True))


def _finite(scores: Scores) -> Scores:
    """JSON has no word for what is no number."""
    return Scores(scores.metric, *(_known(score) for score in (scores.given, scores.grafted)))


def _known(score: Score) -> Score:
    parts = (score.validation, score.test)
    return Score(*(part if part is not None and isfinite(part) else None for part in parts))
