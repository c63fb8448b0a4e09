"""Compares an evaluation graph with the module itself at sizes that it was not traced with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensor

from graftkit.calling import Calling, calling_of
from graftkit.core.errors import TraceError
from graftkit.core.signature import Port
from graftkit.tracing.capture import quiet
from graftkit.tracing.free import BATCH, resized
from graftkit.tracing.generators import generators_kept
from graftkit.tracing.reasons import reason

CHECKED_ROWS = (7, 16)
_MOST_NUMBERS = 2**24  # in inputs that a check makes


class SizeError(TraceError):
    """A graph that is wrong at another size than the batch's: fewer sizes can be left free."""


def check_sizes(
    module: nn.Module,
    calling: Calling,
    graph: fx.GraphModule,
    inputs: tuple[Tensor, ...],
    ports: Sequence[Port],
    limits: Mapping[str, tuple[int, int | None]],
    *,
    name: str,
) -> None:
    """Raise TraceError where the evaluation graph differs from the module itself at other sizes.

    Tracing follows one branch of code that asks how large something is; the other would be lost without a word.
    """
    modes = {m: m.training for m in module.modules()}
    module.eval()
    try:
        if any(BATCH in port.shape for port in ports):
            for rows in CHECKED_ROWS:
                _check_rows(module, calling, graph, resized(inputs, ports, BATCH, rows), rows, name)
        for size, values in _other_sizes(inputs, ports, limits):
            _check_size(module, calling, graph, values, size, name)
    finally:
        for m, mode in modes.items():
            m.training = mode


def eager(module: nn.Module, calling: Calling, inputs: tuple[Tensor, ...]) -> Mapping[str, Tensor]:
    """What the module itself gives, by name."""
    with quiet(), torch.no_grad(), generators_kept():
        torch.manual_seed(0)
        return {name: tensor.detach() for name, tensor in calling.run(module, inputs).tensors.items()}


def cannot_take(module: nn.Module, example: Any) -> str | None:
    """Why a module fails on an example in `eval()`, in a line; None if it does not."""
    modes = {m: m.training for m in module.modules()}
    try:
        calling, inputs = calling_of(module, example)
        module.eval()
        eager(module, calling, inputs)
    except Exception as error:  # whatever the user's own forward raises
        return str(error) if isinstance(error, TraceError) else reason(error)
    finally:
        for m, mode in modes.items():
            m.training = mode
    return None


def run_graph(graph: fx.GraphModule, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """What a graph gives, as a tuple."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        found = graph(*inputs)
    return tuple(value.detach() for value in ((found,) if isinstance(found, Tensor) else found))


def _check_rows(
    module: nn.Module, calling: Calling, graph: fx.GraphModule, inputs: tuple[Tensor, ...], rows: int, name: str
) -> None:
    try:
        expected = tuple(eager(module, calling, inputs).values())
    except Exception as error:  # whatever the model's own code raises
        raise TraceError(f"{name} was traced, but fails itself on {rows} rows: {reason(error)}") from error
    if any(isinstance(value, FakeTensor) for value in expected):
        raise TraceError(f"{name} keeps tensors that were made while it was traced; it cannot run any more")
    try:
        found = run_graph(graph, inputs)
    except Exception as error:
        raise TraceError(f"{name} was traced, but its graph fails on {rows} rows: {reason(error)}") from error
    if not _agree(expected, found):
        raise TraceError(
            f"{name}, traced, gives other outputs for {rows} rows than it does itself: its code asks"
            " how many rows there are, or draws random numbers in eval()"
        )


def _check_size(
    module: nn.Module, calling: Calling, graph: fx.GraphModule, inputs: tuple[Tensor, ...], size: str, name: str
) -> None:
    try:
        expected = tuple(eager(module, calling, inputs).values())
    except Exception:  # the model itself does not take this size, so nobody will give it
        return
    try:
        agrees = _agree(expected, run_graph(graph, inputs))
    except Exception as error:
        raise SizeError(f"{name}, traced, fails where {size} changes: {reason(error)}") from error
    if not agrees:
        raise SizeError(f"{name}, traced, gives other outputs than it does itself where {size} changes")


def _other_sizes(
    inputs: tuple[Tensor, ...], ports: Sequence[Port], limits: Mapping[str, tuple[int, int | None]]
) -> Iterator[tuple[str, tuple[Tensor, ...]]]:
    """The inputs with each free size but the batch, in turn, smaller and larger, and just beyond its limits."""
    sizes = {size: 0 for port in ports for size in port.shape if isinstance(size, str) and size != BATCH}
    for tensor, port in zip(inputs, ports, strict=True):
        sizes |= {size: tensor.shape[dim] for dim, size in enumerate(port.shape) if size in sizes}
    for size, now in sizes.items():
        lower, upper = limits.get(size, (2, None))
        beyond = [lower - 1] if lower > 2 else []
        beyond += [upper + 1] if upper is not None else []
        for other in dict.fromkeys((max(2, now // 2), now + 3, *beyond)):
            numbers = sum(tensor.numel() for tensor in inputs) / max(now, 1) * other
            if size.isidentifier() and other != now and numbers < _MOST_NUMBERS:
                yield size, resized(inputs, ports, size, other)


def _agree(expected: Sequence[Tensor], found: Sequence[Tensor]) -> bool:
    return len(expected) == len(found) and all(
        ours.shape == theirs.shape and _close(ours, theirs) for ours, theirs in zip(expected, found, strict=True)
    )


def _close(ours: Tensor, theirs: Tensor) -> bool:
    if not ours.is_floating_point() and not ours.is_complex():
        return bool((ours != theirs).double().mean() <= 1e-3) if ours.numel() else True
    scale = float(ours.abs().max()) if ours.numel() else 0.0
    return torch.allclose(ours, theirs, rtol=1e-3, atol=1e-5 + 1e-4 * scale, equal_nan=True)
