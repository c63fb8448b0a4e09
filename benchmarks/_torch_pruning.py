"""torch-pruning alone (Fang et al. 2023, DepGraph): its magnitudes, one cut to as few parameters as are asked for."""

from __future__ import annotations

import copy

import torch_pruning as tp
from torch import Tensor, nn

SHARES = 400  # that are tried, least first


def pruned(module: nn.Module, example: Tensor, parameters: float, *, everywhere: bool) -> nn.Module:
    """A copy without the least share of channels with which it has no more parameters, on the CPU.

    Args:
        example: its inputs.
        everywhere: the least of all layers, rather than the same share of each.
    """
    for share in range(SHARES):
        tried = _pruned(module, example, share / SHARES, everywhere)
        if sum(p.numel() for p in tried.parameters()) <= parameters:
            return tried
    raise ValueError(f"torch-pruning does not come down to {parameters:,.0f} parameters")


def _pruned(module: nn.Module, example: Tensor, share: float, everywhere: bool) -> nn.Module:
    tried = copy.deepcopy(module).cpu()
    last = [layer for layer in tried.modules() if isinstance(layer, nn.Linear)][-1]
    pruner = tp.pruner.BasePruner(
        tried,
        example.cpu(),
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        global_pruning=everywhere,
        pruning_ratio=share,
        ignored_layers=[last],
    )
    pruner.step()
    return tried
