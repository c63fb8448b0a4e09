"""How a module behaves in training and in evaluation: what it draws at random, which buffers it moves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .compare import difference

Run = Callable[[], dict[str, Tensor]]
_SAME = 1e-9


@contextmanager
def in_mode(module: nn.Module, training: bool) -> Iterator[None]:
    """The module in one mode, and afterwards as it was; its buffers, too."""
    modes = {m: m.training for m in module.modules()}
    held = [(buffer, buffer.detach().clone()) for buffer in module.buffers()]
    module.train(training)
    try:
        yield
    finally:
        for m, mode in modes.items():
            m.training = mode
        with torch.no_grad():
            for buffer, value in held:
                buffer.copy_(value)


def moved(module: nn.Module, run: Run) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What a run gives, and the buffers it moved, by name, with their new values."""
    before = {name: buffer.detach().clone() for name, buffer in module.named_buffers(remove_duplicate=False)}
    outputs = run()
    after = dict(module.named_buffers(remove_duplicate=False))
    changed = {n: after[n].detach().clone() for n, v in before.items() if not _equal(after[n], v)}
    return outputs, changed


def random_outputs(module: nn.Module, run: Run, *, training: bool, tries: int = 4) -> set[str]:
    """The outputs that differ from one run to the next on the same input."""
    found: set[str] = set()
    first: dict[str, Tensor] = {}
    for _ in range(tries):
        with in_mode(module, training), torch.no_grad():
            outputs = run()
        first = first or outputs
        found |= {name for name, value in outputs.items() if not difference(first[name], value) <= _SAME}
    return found


def moving(parameters: Iterable[tuple[str, Tensor]]) -> set[str]:
    """The parameters whose gradient is there and not zero everywhere."""
    return {name for name, p in parameters if p.grad is not None and bool((p.grad != 0).any())}


def _equal(left: Tensor, right: Tensor) -> bool:
    return left.shape == right.shape and bool(torch.equal(left, right))
