"""From a module to one in whose place dendrites can come."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from graftkit import surgery
from graftkit.core.errors import TraceError
from graftkit.growing.grown import Grown
from graftkit.reading import trace


def growable(model: nn.Module, example_inputs: Any, *, output: str | None = None, dynamic: str = "auto") -> Grown:
    """A module in whose place dendrites can come, over the same parameters and called in the same way.

    For frameworks that are given a model before there is an optimizer; a `Grower` takes it.

    Raises:
        TraceError: the module cannot be traced, is a wrapper around the one to be grown, or has parts in another mode
            than the rest.
    """
    _check_bare(model)
    _check_mode(model)
    device = next(model.parameters()).device
    traced = trace(model, example_inputs, device=str(device), output=output, dynamic=dynamic)
    return Grown(surgery.empty(traced))


def _check_mode(model: nn.Module) -> None:
    """Raise TraceError where parts are in another mode than `train` would bring them to: it would be lost."""
    modes = {name: part.training for name, part in model.named_modules()}
    model.train(model.training)
    other = [name for name, part in model.named_modules() if part.training != modes[name]]
    for name, part in model.named_modules():
        part.training = modes[name]
    if other:
        mode = "training" if modes[other[0]] else "evaluation"
        raise TraceError(
            f"{other[0]} is in {mode} mode, unlike the model around it, and would not stay so: let the model's own"
            " train() see to it, which growth respects"
        )


def _check_bare(model: nn.Module) -> None:
    """Raise TraceError for a wrapper around the module that is to be grown."""
    inside = "give the Grower the module inside, and wrap grower.model afterwards"
    if isinstance(model, DistributedDataParallel | nn.DataParallel):
        raise TraceError(f"the model is wrapped in {type(model).__name__}: {inside}")
    if isinstance(model, torch._dynamo.OptimizedModule):
        raise TraceError(f"the model is compiled: {inside}")
    if any(type(p).__name__ in ("DTensor", "FlatParameter") for p in model.parameters()):
        raise TraceError("the model is sharded (FSDP), and graphs need whole weights: use DistributedDataParallel")
