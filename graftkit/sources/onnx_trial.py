"""Tries a module on tensors that hold nothing, or operator by operator, so that nothing runs that costs too much."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from graftkit.core.signature import Port
from graftkit.tracing.quietly import quiet

_MOST_BYTES = 2**31  # of one tensor in a trial that holds nothing
_MOST_IN_ALL = 2**34  # of all tensors that it makes, which need not be there at one time
_MOST_FLOPS = 3e11  # multiplications and additions of it
_MOST_OPERATIONS = 20_000
_MOST_IN_RUN = 2**28  # bytes of one tensor that is made of numbers
_MOST_WORK = 5 * 10**10  # multiplications and additions: a second or two
_SECONDS = 5.0


def fits(module: nn.Module, inputs: list[Tensor]) -> bool:
    """Whether it runs on tensors that hold nothing, and makes none that is out of measure."""
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    try:
        with quiet(), torch.no_grad(), FlopCounterMode(display=False) as work, fake, _Measure():
            module(*(fake.from_tensor(tensor) for tensor in inputs))
    except Exception:  # data-dependent or broken: not tried any further
        return False
    return bool(work.get_total_flops() <= _MOST_FLOPS)


class _Measure(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Stops what makes a tensor out of measure, too many, or an operation whose work nobody counts."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations = 0
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += 1
        if self.operations > _MOST_OPERATIONS or "linalg" in str(func):
            raise OverflowError(f"{self.operations} operations, the last {func}")
        found = func(*args, **(kwargs or {}))
        for each in found if isinstance(found, tuple | list) else (found,):
            size = each.numel() * each.element_size() if isinstance(each, Tensor) else 0
            self.bytes += size
            if size > _MOST_BYTES or self.bytes > _MOST_IN_ALL:
                raise OverflowError(f"{func} makes {size} bytes")
        return found


def run_within_limits(run: Callable[..., Any], *given: Any) -> Any:
    """What it gives, gradients off. Raises CostError before an operator that makes or does more than a trial may."""
    with quiet(), torch.no_grad(), _Limits():
        return run(*given)


class CostError(Exception):
    """A trial costs more than it may."""


class _Limits(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Tries every operator on tensors that hold nothing before it runs."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.work, self.end = 0, time.monotonic() + _SECONDS

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = args, kwargs or {}
        try:
            with self.fake:
                faked, keywords = tree_map_only(Tensor, self.fake.from_tensor, given)
                made = func(*faked, **keywords)
        except Exception:  # what depends on the data makes no more than these are; what is broken says so itself
            made = ()
        self._count(func, given, made)
        return func(*given[0], **given[1])

    def _count(self, func: Any, given: tuple[Any, Mapping[str, Any]], made: Any) -> None:
        if any(x.numel() * x.element_size() > _MOST_IN_RUN for x in tree_leaves(made) if isinstance(x, Tensor)):
            raise CostError("it makes tensors of more than 256 MiB")
        work = flop_registry.get(getattr(func, "_overloadpacket", None))
        self.work += int(work(*given[0], **given[1], out_val=made)) if work and isinstance(made, Tensor) else 0
        if self.work > _MOST_WORK or time.monotonic() > self.end:
            raise CostError("it takes too long for that")


def numbers_in(port: Port, free: int) -> int:
    """How many numbers are in one row of what `example` gives."""
    return math.prod(size if isinstance(size, int) else free for size in port.shape[1:])


def example(port: Port, rows: int, seed: int, free: int = 4) -> Tensor:
    """Random numbers of the port's type and sizes, of which `free` stands for those that have a name."""
    shape = [rows, *(size if isinstance(size, int) else free for size in port.shape[1:])][: len(port.shape)]
    dtype, generator = getattr(torch, port.dtype), torch.Generator().manual_seed(seed)
    if dtype.is_floating_point:
        return torch.randn(shape, generator=generator).to(dtype)
    return torch.randint(0, 2, shape, generator=generator).to(dtype)


def as_tuple(found: Any) -> tuple[Tensor, ...]:
    """What a module gives, several outputs or one."""
    return found if isinstance(found, tuple) else (found,)
