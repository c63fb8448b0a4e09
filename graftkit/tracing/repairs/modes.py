"""Keeps two of torch's contexts visible while a module is captured: inference mode, and recomputed activations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointFunction


@contextmanager
def inference_as_no_grad(module: nn.Module, train: bool) -> Iterator[str | None]:
    """Applies to `with torch.inference_mode():` in the model's code, which torch.export forgets; gradients stay off."""
    open_regions: list[torch.set_grad_enabled] = []

    def enter(region: torch.inference_mode) -> None:
        open_regions.append(torch.set_grad_enabled(torch.is_grad_enabled() and not region.mode))

    def leave(region: torch.inference_mode, *error: Any) -> None:
        open_regions.pop().__exit__(None, None, None)

    with mock.patch.multiple(torch.inference_mode, __enter__=enter, __exit__=leave):
        yield None


@contextmanager
def without_recomputing(module: nn.Module, train: bool) -> Iterator[str | None]:
    """Applies to `torch.utils.checkpoint`'s reentrant form, which hides from torch.export that anything is learned."""

    def plainly(function: Callable[..., Any], preserve_generators: bool, *args: Any) -> Any:
        return function(*args)

    with mock.patch.object(CheckpointFunction, "apply", plainly):
        yield None
