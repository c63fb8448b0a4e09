"""Several processes that train one model: they decide alike, and what grows averages its gradients."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, distributed
from torch.nn import Parameter


def several() -> bool:
    """Whether other processes train the same model."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def agreed(value: float, device: torch.device) -> float:
    """The mean of a number over all processes; NaN where one says NaN."""
    if not several():
        return value
    told = torch.tensor([value], dtype=torch.float64, device=_place(device))
    distributed.all_reduce(told)
    return float(told) / distributed.get_world_size()


def gathered(own: Any) -> list[Any]:
    """What each process has, in their order."""
    if not several():
        return [own]
    found: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(found, own)
    return found


def number() -> int:
    """Which of the processes this is."""
    return distributed.get_rank() if several() else 0


def average_gradients(parameters: Iterable[Parameter]) -> None:
    """From now on each of these gradients becomes the mean over all processes, as soon as it is accumulated.

    DistributedDataParallel knows the parameters that were there when it was made, and no later ones. A mean of what is
    a mean already stays what it is, so that accumulating over several batches is right, too.
    """
    if not several():
        return
    for parameter in parameters:
        parameter.register_post_accumulate_grad_hook(_mean)  # type: ignore[no-untyped-call]


def _mean(parameter: Tensor) -> None:
    assert parameter.grad is not None
    parameter.grad.div_(distributed.get_world_size())
    distributed.all_reduce(parameter.grad)


def _place(device: torch.device) -> torch.device:
    return device if distributed.get_backend() != "gloo" else torch.device("cpu")
