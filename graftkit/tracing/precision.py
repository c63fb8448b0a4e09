"""Brings weights in half precision to single precision, which is what is trained and exported."""

from __future__ import annotations

import copy

import torch
from torch import nn

_TAKEN = frozenset({torch.float32, torch.float64, torch.complex64, torch.complex128})


def in_single_precision(module: nn.Module, *, copies: bool) -> tuple[nn.Module, tuple[str, ...]]:
    """The module, or in float32 one with weights in bfloat16 or float16, and a line that says so.

    With `copies` the module itself stays as it is, unless it cannot be copied.
    """
    tensors = [*module.parameters(), *module.buffers()]
    odd = sorted(
        {str(t.dtype).removeprefix("torch.") for t in tensors if t.is_floating_point() and t.dtype not in _TAKEN}
    )
    if not odd:
        return module, ()
    try:
        own = copy.deepcopy(module) if copies else module
    except Exception:  # tensors that are results of a computation cannot be copied
        own = module
    return own.float(), (f"its {' and '.join(odd)} weights became float32, in which it is trained and written",)
