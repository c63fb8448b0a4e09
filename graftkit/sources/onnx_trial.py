"""Tries a module on tensors that hold nothing, before it is run on numbers: what it would make, and what that costs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from graftkit.core.signature import Port
from graftkit.tracing.quietly import quiet

_MOST_BYTES = 2**31  # of one tensor in the trial


def fits(module: nn.Module, inputs: list[Tensor]) -> bool:
    """Whether it runs on tensors that hold nothing, and makes none that is out of measure."""
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    try:
        with quiet(), torch.no_grad(), fake, _Measure() as measure:
            module(*(fake.from_tensor(tensor) for tensor in inputs))
    except Exception:  # data-dependent or broken: not tried any further
        return False
    return bool(measure.largest <= _MOST_BYTES)


class _Measure(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the largest tensor that is made."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for each in found if isinstance(found, tuple | list) else (found,):
            if isinstance(each, Tensor):
                self.largest = max(self.largest, each.numel() * each.element_size())
        return found


def example(port: Port, rows: int, seed: int) -> Tensor:
    """Random numbers of the port's type and sizes; a free size is four."""
    shape = [rows, *(size if isinstance(size, int) else 4 for size in port.shape[1:])]
    dtype, generator = getattr(torch, port.dtype), torch.Generator().manual_seed(seed)
    if dtype.is_floating_point:
        return torch.randn(shape, generator=generator).to(dtype)
    return torch.randint(0, 2, shape, generator=generator).to(dtype)


def as_tuple(found: Any) -> tuple[Tensor, ...]:
    """What a module gives, several outputs or one."""
    return found if isinstance(found, tuple) else (found,)
