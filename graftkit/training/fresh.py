"""Draws a module's weights anew, each layer as it does itself."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn


def fresh(module: nn.Module) -> list[str]:
    """Let every layer draw its weights, in place; returns the parameters that no layer draws.

    A layer draws with `reset_parameters`, as torch's do (attention with a private name for it), if it needs no
    arguments. What keeps its value then was not drawn, unless it is all zeros or ones, as offsets and scales begin.
    What no layer draws gets normal numbers with the mean and the spread that it has.
    """
    before = {parameter: parameter.detach().clone() for parameter in module.parameters()}
    for layer in module.modules():
        draw = getattr(layer, "reset_parameters", None) or getattr(layer, "_reset_parameters", None)
        if callable(draw) and _takes_nothing(draw):
            draw()
    drawn = {p for p, old in before.items() if _begins(p) or not torch.equal(p, old)}
    left = {name: parameter for name, parameter in module.named_parameters() if parameter not in drawn}
    with torch.no_grad():
        for parameter in left.values():
            parameter.normal_(float(parameter.mean()), float(parameter.std()) if parameter.numel() > 1 else 0.0)
    return list(left)


def _takes_nothing(draw: Callable[..., Any]) -> bool:
    try:
        inspect.signature(draw).bind()
    except (TypeError, ValueError):
        return False
    return True


def _begins(parameter: nn.Parameter) -> bool:
    """Whether it is all zeros or all ones."""
    return bool(((parameter == 0).all() | (parameter == 1).all()).item())
