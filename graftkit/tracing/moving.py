"""Finds the buffers that a module moves in training and its training graph does not: nothing may stay unsaid."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from graftkit.calling import Calling
from graftkit.tracing.capture import untouched
from graftkit.tracing.generators import generators_kept
from graftkit.tracing.quietly import quiet

_NAMED = 3  # how many are told by name


def unmoved(module: nn.Module, calling: Calling, graph: fx.GraphModule, inputs: tuple[Tensor, ...]) -> str | None:
    """A line that names the buffers that stay, None where there is none or the module cannot tell."""
    theirs = _moved(module, lambda: calling.run(module, inputs))
    ours = _moved(graph, lambda: graph(*inputs))
    still = [name for name, buffer in theirs.items() if not any(buffer is other for other in ours.values())]
    if not still:
        return None
    more = f" and {len(still) - _NAMED} more" if len(still) > _NAMED else ""
    return f"buffers that the module moves in training stay as they are: {', '.join(still[:_NAMED])}{more}"


def _moved(module: nn.Module, run: Callable[[], Any]) -> Mapping[str, Tensor]:
    """The buffers whose values are others after one pass in training, by name; the module stays as it was."""
    with quiet(), torch.no_grad(), generators_kept(), untouched(module, train=True):
        before = {name: (buffer, buffer.clone()) for name, buffer in module.named_buffers()}
        try:
            run()
        except Exception:  # whatever the model's own code raises in training alone
            return {}
        after = dict(module.named_buffers())
        return {name: buffer for name, (buffer, value) in before.items() if not _equal(value, after.get(name, value))}


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and torch.equal(one, other)
