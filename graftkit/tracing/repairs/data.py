"""Reads and writes a tensor's `.data` in a way that torch.export can follow, and spares distributions their checks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.distributions import Distribution


@contextmanager
def data_as_detached(module: nn.Module, train: bool) -> Iterator[str | None]:
    """Applies to `x.data`, older code's word for `x.detach()`, and to `x.data = y`."""
    plain: Any = torch._C.TensorBase.data

    def read(tensor: Tensor) -> Tensor:
        held: Tensor = tensor.detach() if isinstance(tensor, FakeTensor) else plain.__get__(tensor)
        return held

    def write(tensor: Tensor, value: Tensor) -> None:
        if not isinstance(tensor, FakeTensor):
            plain.__set__(tensor, value)
            return
        with torch.no_grad():
            tensor.detach().copy_(value)

    with mock.patch.object(Tensor, "data", property(read, write)):
        yield None


@contextmanager
def unchecked_distributions(module: nn.Module, train: bool) -> Iterator[str | None]:
    """Applies to `torch.distributions`, which look at the values of their parameters."""
    with mock.patch.object(Distribution, "_validate_args", False):
        yield None
