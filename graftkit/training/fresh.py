"""Draws a module's weights anew, each layer as it does itself."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def fresh(module: nn.Module) -> list[str]:
    """Let every layer draw its weights, in place; returns the parameters that no layer draws.

    A layer draws with `reset_parameters`, as torch's do (attention with a private name for it), if it needs no
    arguments. What no layer draws stays where it is all zeros or ones, as offsets and scales begin; otherwise it gets
    normal numbers with the mean and the spread that it has.
    """
    before = {p: p.detach().clone() for p in module.parameters() if p.is_floating_point()}
    with torch.no_grad():
        for parameter in before:
            parameter.fill_(math.nan)  # to be seen where no layer draws
    for layer in module.modules():
        draw = getattr(layer, "reset_parameters", None) or getattr(layer, "_reset_parameters", None)
        if callable(draw) and _takes_nothing(draw):
            draw()
    kept = {p: old for p, old in before.items() if bool(p.isnan().any())}
    left = {name: p for name, p in module.named_parameters() if p in kept and not _begins(kept[p])}
    with torch.no_grad():
        for parameter, old in kept.items():
            parameter.copy_(old)
        for parameter in left.values():
            parameter.normal_(float(parameter.mean()), float(parameter.std()) if parameter.numel() > 1 else 0.0)
    return list(left)


def _takes_nothing(draw: Callable[..., Any]) -> bool:
    try:
        inspect.signature(draw).bind()
    except (TypeError, ValueError):
        return False
    return True


def _begins(value: Tensor) -> bool:
    """Whether it is all zeros or all ones."""
    return bool(((value == 0).all() | (value == 1).all()).item())
