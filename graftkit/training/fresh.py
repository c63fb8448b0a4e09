"""Draws a module's weights anew, each layer as it does itself."""

from __future__ import annotations

import torch
from torch import nn


def fresh(module: nn.Module) -> list[str]:
    """Let every layer draw its weights, in place; returns the parameters that no layer draws.

    A layer draws with `reset_parameters`, as torch's do (attention with a private name for it). What no layer draws
    gets normal numbers with the mean and the spread that it has.
    """
    drawn: set[int] = set()
    for layer in module.modules():
        draw = getattr(layer, "reset_parameters", None) or getattr(layer, "_reset_parameters", None)
        if callable(draw):
            draw()
            drawn |= {id(parameter) for parameter in layer.parameters(recurse=isinstance(layer, nn.MultiheadAttention))}
    left = {name: parameter for name, parameter in module.named_parameters() if id(parameter) not in drawn}
    with torch.no_grad():
        for parameter in left.values():
            parameter.normal_(float(parameter.mean()), float(parameter.std()) if parameter.numel() > 1 else 0.0)
    return list(left)
