"""Makes a trained plain net wider without changing what it computes (Chen, Goodfellow and Shlens 2016, Net2Net)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

NOISE = 0.01  # of a weight's standard deviation, for copies to part


def widened(narrow: nn.Sequential, wide: nn.Sequential, *, seed: int) -> nn.Sequential:
    """`wide`, a fresh net of the same layers with more channels, with the weights of `narrow`.

    A new channel copies an old one, and whatever reads the two halves its weights. In training, batch statistics of
    copies are those of what they copy.
    """
    generator = torch.Generator().manual_seed(seed)
    copied: Tensor | None = None  # for each channel before this layer which old one it is
    with torch.no_grad():
        for old, new in zip(narrow, wide, strict=True):
            if isinstance(old, nn.Linear | nn.Conv1d | nn.Conv2d):
                copied = _layer(old, new, copied, generator)
            elif isinstance(old, nn.BatchNorm1d | nn.BatchNorm2d):
                for name, tensor in old.state_dict().items():
                    new.state_dict()[name].copy_(tensor[copied] if tensor.ndim else tensor)
    return wide


def _layer(old: nn.Module, new: nn.Module, copied: Tensor | None, generator: torch.Generator) -> Tensor:
    weight, target = old.weight, new.weight
    assert isinstance(weight, Tensor) and isinstance(target, Tensor)
    if copied is not None:
        positions = weight.shape[1] // (int(copied.max()) + 1)  # a Linear behind a Flatten reads channels by position
        columns = (copied.unsqueeze(1) * positions + torch.arange(positions)).flatten()
        weight = weight[:, columns] / torch.bincount(columns)[columns].reshape(1, -1, *[1] * (weight.ndim - 2))
    rows = len(weight)
    more = torch.randint(0, rows, (len(target) - rows,), generator=generator)
    kept = torch.cat([torch.arange(rows), more])
    noise = NOISE * weight.std() * torch.randn(target.shape, generator=generator)
    target.copy_(weight[kept] + noise)
    if isinstance(old.bias, Tensor) and isinstance(new.bias, Tensor):
        new.bias.copy_(old.bias[kept])
    return kept
