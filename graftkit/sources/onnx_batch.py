"""Frees a batch size that an exporter fixed, and keeps it fixed where rows would then not stay apart."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from graftkit.core.signature import Port, Signature
from graftkit.sources.onnx_operators import OPERATORS, Call
from graftkit.sources.onnx_operators.numbers import Numbers, numbers

FREED = "the file fixes its batch size to {rows}; it was freed here, and rows taken together give what each gives alone"
KEPT = "the file fixes its batch size to {rows}, and rows do not stay apart when it is freed; export it with a free one"
_MOST_BYTES = 2**31  # of one tensor in the trial
_MOST_NUMBERS = 2**26  # in one input of it
_CLOSE = 1e-4


def free_batch(module: fx.GraphModule, signature: Signature) -> tuple[Signature, tuple[str, ...]]:
    """Let the module take any number of rows, if it can; the signature that it has then, and what to tell the user.

    Only a file whose inputs all have the same number as their first size is changed.
    """
    rows = {port.shape[0] if port.shape else None for port in signature.inputs}
    fixed = rows.pop() if len(rows) == 1 else None
    if not isinstance(fixed, int):
        return signature, ()
    sizes = [[size for size in port.shape if isinstance(size, int)] for port in signature.inputs]
    if max(map(math.prod, sizes)) > _MOST_NUMBERS:
        return signature, (KEPT.format(rows=fixed),)
    changed = _loosen(module, fixed, signature)
    if changed is not None and _rows_stay_apart(module, fixed, signature):
        freed = Signature(
            tuple(_freed(port, fixed) for port in signature.inputs),
            tuple(_freed(port, fixed) for port in signature.outputs),
            signature.output,
        )
        return freed, (FREED.format(rows=fixed),)
    for call, origins in (changed or {}).items():
        call.origins = origins
    return signature, (KEPT.format(rows=fixed),)


def _loosen(module: fx.GraphModule, rows: int, signature: Signature) -> dict[Call, tuple[Any, ...]] | None:
    """Let reshapes take the batch from their input; what they had before, or None where the module cannot be tried."""
    seen: dict[Call, int] = {}
    hooks = [
        call.register_forward_pre_hook(lambda call, given: seen.setdefault(call, _first_size(given)))
        for call in module.modules()
        if isinstance(call, Call) and call.operator is OPERATORS["Reshape"]
    ]
    try:
        if not _fits(module, [_example(port, rows, 0) for port in signature.inputs]):
            return None
    finally:
        for hook in hooks:
            hook.remove()
    before: dict[Call, tuple[Any, ...]] = {}
    for call, size in seen.items():
        wanted = call.origins[1] if len(call.origins) > 1 else None
        if isinstance(wanted, Numbers) and wanted.plain and wanted.flat()[:1] == [rows]:
            before[call] = call.origins
            call.origins = (call.origins[0], _loosened(wanted, size == rows))
    return before


def _first_size(given: tuple[Any, ...]) -> int:
    return int(given[0].shape[0]) if isinstance(given[0], Tensor) and given[0].ndim else -1


def _loosened(wanted: Numbers, copied: bool) -> Numbers:
    """The first size taken from the input, or left over."""
    rest = wanted.flat()[1:]
    if copied:
        return numbers([0, *rest])
    return wanted if -1 in rest else numbers([-1, *rest])


def _rows_stay_apart(module: fx.GraphModule, rows: int, signature: Signature) -> bool:
    """Whether two batches together give what each gives alone."""
    first, second = ([_example(port, rows, seed) for port in signature.inputs] for seed in (1, 2))
    both = [torch.cat([a, b]) for a, b in zip(first, second, strict=True)]
    if not _fits(module, both):
        return False
    try:
        with torch.no_grad():
            alone, together = [_tuple(module(*given)) for given in (first, second)], _tuple(module(*both))
    except Exception:  # what the file does with a batch that it never meant
        return False
    return all(_same(torch.cat(parts), whole) for *parts, whole in zip(*alone, together, strict=True) if parts[0].ndim)


def _same(apart: Tensor, together: Tensor) -> bool:
    if apart.shape != together.shape:
        return False
    a, b = apart.double(), together.double()
    scale = float(a.abs().max()) if a.numel() else 0.0
    close: bool = torch.allclose(a, b, atol=_CLOSE * max(scale, 1e-3), rtol=0.0, equal_nan=True)
    return close


def _fits(module: fx.GraphModule, inputs: list[Tensor]) -> bool:
    """Whether it runs on tensors that hold nothing, and makes none that is out of measure."""
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    try:
        with torch.no_grad(), fake, _Measure() as measure:
            module(*(fake.from_tensor(tensor) for tensor in inputs))
    except Exception:  # data-dependent or broken: not tried any further
        return False
    return measure.largest <= _MOST_BYTES


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


def _example(port: Port, rows: int, seed: int) -> Tensor:
    """Random numbers of the port's type and sizes; a free size is four."""
    shape = [rows, *(size if isinstance(size, int) else 4 for size in port.shape[1:])]
    dtype, generator = getattr(torch, port.dtype), torch.Generator().manual_seed(seed)
    if dtype.is_floating_point:
        return torch.randn(shape, generator=generator).to(dtype)
    return torch.randint(0, 2, shape, generator=generator).to(dtype)


def _freed(port: Port, rows: int) -> Port:
    fixed = port.shape and port.shape[0] == rows
    return replace(port, shape=("batch", *port.shape[1:])) if fixed else port


def _tuple(found: Any) -> tuple[Tensor, ...]:
    return found if isinstance(found, tuple) else (found,)
