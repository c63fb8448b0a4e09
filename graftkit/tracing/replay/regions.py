"""TorchScript's `with` regions in Python: no gradients, mixed precision, what a profiler is told; no others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from graftkit.core.errors import TraceError
from graftkit.tracing.replay.primitives import DTYPES


class Region:
    """An object whose code runs in `with`: what `__init__` wrote on it, and the context that it stands for."""

    def __init__(self, kind: str, where: str):
        self._make = _made_by(kind, where)
        self._written: dict[str, Any] = {}
        self._open: AbstractContextManager[Any] = nullcontext()

    def read(self, name: str) -> Any:
        """What the code finds under a name of the object."""
        return self._written[name]

    def write(self, name: str, value: Any) -> None:
        """What the code puts under a name of the object."""
        self._written[name] = value

    def enter(self) -> None:
        """The region begins."""
        self._open = self._make(self._written)
        self._open.__enter__()

    def leave(self) -> None:
        """The region ends."""
        self._open.__exit__(None, None, None)
        self._open = nullcontext()


def _made_by(kind: str, where: str) -> Callable[[Mapping[str, Any]], AbstractContextManager[Any]]:
    name = kind.removeprefix("__torch__.")
    if name not in _CONTEXTS:
        raise TraceError(f"its code makes an object of the class {name}, which is not replayed ({where})")
    return _CONTEXTS[name]


def _autocast(written: Mapping[str, Any]) -> AbstractContextManager[Any]:
    code = written["fast_dtype"]
    dtype = DTYPES[code] if isinstance(code, int) else code
    return torch.autocast(written["device"], dtype=dtype, enabled=written["_enabled"])


_CONTEXTS: Mapping[str, Callable[[Mapping[str, Any]], AbstractContextManager[Any]]] = {
    "torch.autograd.grad_mode.no_grad": lambda written: torch.no_grad(),
    "torch.amp.autocast_mode.autocast": _autocast,
    "torch.autograd.profiler.record_function": lambda written: nullcontext(),
}
