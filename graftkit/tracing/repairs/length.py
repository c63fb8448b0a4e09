"""Lets `len(x)` of a tensor stay free: Python's own must give a number, and would fix the batch size."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def free_length(module: nn.Module, train: bool) -> Iterator[str | None]:
    """Applies to every Python module in which a class of the model is written, but for torch's own."""
    spaces = [space for space in _namespaces(module) if "len" not in space]
    for space in spaces:
        space["len"] = _length
    try:
        yield None
    finally:
        for space in spaces:
            del space["len"]


def _length(value: Any) -> Any:
    return value.shape[0] if isinstance(value, Tensor) and value.ndim else builtins.len(value)


def _namespaces(module: nn.Module) -> list[dict[str, Any]]:
    names = {cls.__module__ for part in module.modules() for cls in type(part).__mro__}
    own = sorted(name for name in names if name.split(".")[0] not in ("torch", "builtins", "typing"))
    return [vars(sys.modules[name]) for name in own if name in sys.modules]
