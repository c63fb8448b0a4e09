"""Stops a capture whose free sizes grow into formulas that torch would take minutes to reason about."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from graftkit.tracing.free import SizeError

# Terms in the formula of one size. Of twelve image models that trace in seconds the longest has 50 (most have 7); a
# shifted-window transformer reaches 139 after a tenth and 857 after all of its three minutes.
LONGEST = 100


class ShortFormulas(TorchFunctionMode):
    """While it is on, a tensor whose size has become too long a formula raises SizeError."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        if isinstance(found, Tensor) and any(_long(size) for size in found.shape):
            raise SizeError(f"its code rounds and pads until they are formulas of over {LONGEST} terms")
        return found


def _long(size: int | torch.SymInt) -> bool:
    """Whether a size is a formula of more than LONGEST terms."""
    waiting, count = [size.node.expr] if isinstance(size, torch.SymInt) else [], 0
    while waiting and count <= LONGEST:
        waiting += waiting.pop().args
        count += 1
    return count > LONGEST
