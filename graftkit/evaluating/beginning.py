"""Fresh weights for a live model, but for what is frozen in it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graftkit import training
from graftkit.core.errors import TraceError
from graftkit.model import GraftedModel


def draw(model: GraftedModel, seed: int) -> list[str]:
    """Fresh weights, in place, decided by the seed; the parameters that no layer draws.

    What does not learn stays: parameters, and the statistics of layers whose parameters are all frozen.

    Raises TraceError for a graph, which does not say how its weights began.
    """
    source = model.traced.source
    with training.seeded(seed):
        kept = {} if source is None else frozen(source)
        left = None if source is None else training.fresh(source)
    if source is None or left is None or len(left) == len(dict(source.named_parameters())):
        raise TraceError(
            f"{model.traced.name} is a graph that does not say how its weights began, so few samples have nothing to"
            " begin from; --start given takes the weights as they are, --only corruptions leaves few samples out"
        )
    with torch.no_grad():
        for name, tensor in (*source.named_parameters(), *source.named_buffers()):
            if name in kept:
                tensor.copy_(kept[name])
    return [name for name in left if name not in kept]


def frozen(module: nn.Module) -> dict[str, Tensor]:
    """A copy of each parameter that does not learn, and of each buffer beside such parameters alone; by name."""
    found = {}
    for path, layer in module.named_modules():
        own = dict(layer.named_parameters(recurse=False))
        buffers = dict(layer.named_buffers(recurse=False))
        still = bool(own) and not any(p.requires_grad for p in own.values())
        stays = {name: p for name, p in own.items() if not p.requires_grad} | (buffers if still else {})
        found.update({f"{path}.{name}" if path else name: tensor.detach().clone() for name, tensor in stays.items()})
    return found
