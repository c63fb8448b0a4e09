"""Has buffers that training assigns anew written in place: torch.export sees that in the outermost module alone."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest import mock

from torch import Tensor, nn

_Places = Mapping[tuple[nn.Module, str], Tensor]


@contextmanager
def buffers_in_place(module: nn.Module, train: bool) -> Iterator[str | None]:
    """Applies to `self.average = 0.9 * self.average + 0.1 * x.mean(0)` of a registered buffer, in training.

    The module runs as it is written, so whoever reads the buffer gets what the module gives it, before and after. When
    it has run, the last value is copied, detached, into the tensor that was there first, if it has its shape and type;
    of others tracing tells the user when it compares the graph with the module (`tracing/training_checks.py`).
    """
    if not train or not any(True for _ in module.buffers()):
        yield None
        return
    original, own = module.forward, module.__dict__.get("forward")

    @functools.wraps(original)
    def forward(*args: Any, **keywords: Any) -> Any:
        before = _buffers(module)
        output = original(*args, **keywords)
        _write_back(before, _buffers(module))
        return output

    module.__dict__["forward"] = forward
    try:
        with mock.patch.object(nn.Module, "__setattr__", _assign):
            yield None
    finally:
        module.__dict__.pop("forward", None)
        module.__dict__.update({"forward": own} if own else {})


_plainly = nn.Module.__setattr__


def _assign(self: nn.Module, name: str, value: Any) -> None:
    """Without torch.export's notice, which would write the value itself, as it is: with what it was computed from."""
    held = self.__dict__.get("_buffers", {})
    if isinstance(held.get(name), Tensor) and isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
        held[name] = value
    else:
        _plainly(self, name, value)


def _buffers(module: nn.Module) -> _Places:
    parts = list(module.modules())
    return {(part, name): value for part in parts for name, value in part._buffers.items() if value is not None}


def _write_back(before: _Places, after: _Places) -> None:
    """All values are taken before any is written: two buffers may have changed places."""
    moved = {place: (old, after[place]) for place, old in before.items() if _takes(old, after.get(place))}
    values = [(old, new.detach().clone()) for old, new in moved.values()]
    for (part, name), (old, _) in moved.items():
        part._buffers[name] = old
    for old, value in values:
        old.copy_(value)


def _takes(old: Tensor, new: Tensor | None) -> bool:
    return new is not None and new is not old and new.shape == old.shape and new.dtype == old.dtype
