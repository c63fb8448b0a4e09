"""The nonlinearities a dendrite can have."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from graftkit.core.errors import PlanError, did_you_mean

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "relu": torch.relu,
    "gelu": functional.gelu,
}


def check_activation(name: str) -> None:
    """Raise PlanError unless there is an activation called `name`."""
    if name not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise PlanError(f"unknown activation {name!r}; there are {known}.{did_you_mean(name, ACTIVATIONS)}")
