"""Loads a file of dendrites onto its base, once everything in it is known to fit."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from graftkit import reading, surgery
from graftkit.contracts import Inputs, LoadedModel
from graftkit.core.errors import PlanError, SourceError, TraceError, shown
from graftkit.core.signature import Port
from graftkit.dendrite_files.fitting import check_fits
from graftkit.dendrite_files.hashes import base_sha256
from graftkit.dendrite_files.reading import DendriteFile, opened
from graftkit.dendrites import build_dendrite
from graftkit.model import GraftedModel, TracedModel
from graftkit.switching import DendriteSet

Base = nn.Module | ExportedProgram | LoadedModel | TracedModel | GraftedModel
_LARGEST = 2**26  # numbers in an input that is made because the caller gave none


def load_dendrites(
    model: Base,
    path: str | Path,
    example: Any = None,
    *,
    name: str | None = None,
    check_base: bool = True,
    output: str | None = None,
    dynamic: str = "auto",
) -> GraftedModel:
    """Load dendrites that `save_dendrites` or `graftkit export RUN --dendrites-only` wrote onto their base.

    They are active where the model had no active ones, and otherwise stand aside until `model.set_dendrites(name)`.

    Args:
        model: the base: a module, what `load` or `trace` gave, or a grafted model, which gets one more set.
        path: the file. Nothing in it is ever run.
        example: what a module is traced with, as `trace` takes it; one of the shapes that the file tells where it is
            None.
        name: what to call the set; the file's name without its ending where it is None.
        check_base: whether the base has to be the one that the dendrites were trained on, to the bit; otherwise they
            only have to fit its sites.
        output, dynamic: as `trace` takes them; the output that the file tells where it is None.

    Raises:
        SourceError: the file cannot be read, or holds what it should not.
        PlanError: it is for another base, or the name is taken; the model is as it was.
        TraceError: the base cannot be traced.
    """
    with opened(path) as file:
        grafted = _grafted(model, file, example, output, dynamic)
        fresh = surgery.empty(grafted.traced)  # over the same base: the model stays as it is until all is well
        if check_base:
            _check_base(fresh, file)
        check_fits(fresh, file)
        tensors = file.tensors()
        surgery.graft(fresh, file.facts.plan.grafts, build_dendrite, seed=0)
        fresh.dendrites.load_state_dict(tensors)
        added = DendriteSet(fresh.plan, fresh.dendrites, fresh.graphs)
        grafted.add_dendrites(Path(path).stem if name is None else name, added)
    return grafted


def _grafted(model: Base, file: DendriteFile, example: Any, output: str | None, dynamic: str) -> GraftedModel:
    if isinstance(model, GraftedModel):
        return model
    if isinstance(model, TracedModel):
        return surgery.empty(model)
    signature = file.facts.signature
    told = signature.output if len(signature.outputs) > 1 else None
    given = _example(file) if example is None else example
    try:
        return surgery.empty(reading.trace(model, given, output=output or told, dynamic=dynamic))
    except TraceError as error:
        hint = "" if example is not None else " (traced with inputs as the file tells; give an example of your own)"
        raise type(error)(f"{error}{hint}") from error


def _example(file: DendriteFile) -> Inputs:
    """Inputs of the shapes that the file tells: by name, where there are several."""
    ports, shapes = file.facts.signature.inputs, file.facts.example
    if any(prod(shape) > _LARGEST for shape in shapes):
        raise SourceError(f"{file.path} tells inputs too large to be made up; give an example input")
    tensors = {port.name: _made_up(port, shape, file) for port, shape in zip(ports, shapes, strict=True)}
    return next(iter(tensors.values())) if len(tensors) == 1 else tensors


def _made_up(port: Port, shape: tuple[int, ...], file: DendriteFile) -> Tensor:
    """Numbers between zero and one; of whole numbers zeros, of a mask ones."""
    dtype = getattr(torch, port.dtype, None)
    if not isinstance(dtype, torch.dtype):
        raise SourceError(f"{file.path} is broken: {shown(port.dtype, 40)} is no type of numbers")
    if dtype.is_floating_point:
        return torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    return torch.ones(shape, dtype=dtype) if dtype is torch.bool else torch.zeros(shape, dtype=dtype)


def _check_base(model: GraftedModel, file: DendriteFile) -> None:
    ours, theirs = base_sha256(model), file.facts.base_sha256
    if ours != theirs:
        raise PlanError(
            f"{file.path} is for another base: {shown(file.facts.base, 80)}, whose tensors have the sha256"
            f" {theirs[:12]}..., and those of {model.traced.name} have {ours[:12]}...; give the model that the"
            " dendrites were trained on"
        )
