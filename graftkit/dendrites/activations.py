"""The nonlinearities a dendrite can have, and none at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from graftkit.core.errors import PlanError, did_you_mean


def _linear(x: Tensor) -> Tensor:
    """As it is: a `lowrank` dendrite is then a low-rank change of the layer's own weights (Hu et al. 2021, LoRA)."""
    return x


ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "relu": torch.relu,
    "gelu": functional.gelu,
    "linear": _linear,
}


def check_activation(name: str) -> None:
    """Raise PlanError unless there is an activation called `name`."""
    if name not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise PlanError(f"unknown activation {name!r}; there are {known}.{did_you_mean(name, ACTIVATIONS)}")
