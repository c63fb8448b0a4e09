"""Finds the part of a model that can be traced where the whole cannot: a detector's backbone, for instance."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from graftkit.calling import Arguments, Calling
from graftkit.core.errors import TraceError
from graftkit.model import TracedModel

MOST_TRIED = 4  # parts; each try takes as long as tracing
_LEAST_SHARE = 0.3  # of the weights; less is not worth grafting
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, *_TRANSPOSED)


def trace_core(
    module: nn.Module, calling: Calling, inputs: tuple[Tensor, ...], trace: Callable[[nn.Module, Any, str], TracedModel]
) -> tuple[TracedModel, str, float] | None:
    """(the traced part, its path, its share of the weights) of the largest part that traces; None if none does.

    Args:
        module: which cannot be traced as a whole.
        calling, inputs: how it is called.
        trace: traces a part, given its arguments and path. Raises TraceError.
    """
    seen = _calls(module, calling, inputs)
    whole = sum(p.numel() for p in module.parameters()) or 1
    shares = {path: sum(p.numel() for p in module.get_submodule(path).parameters()) / whole for path in seen}
    worth = sorted((path for path in seen if shares[path] >= _LEAST_SHARE), key=lambda path: -shares[path])
    for path in worth[:MOST_TRIED]:
        try:
            return trace(module.get_submodule(path), seen[path], path), path, shares[path]
        except TraceError:
            continue
    return None


def outside(module: nn.Module, path: str) -> tuple[str, ...]:
    """The parts beside the one at `path`, outermost first, with how many Linear and Conv modules each holds."""
    found = []
    steps = path.split(".")
    for depth, step in enumerate(steps):
        owner = module.get_submodule(".".join(steps[:depth]))
        beside = ((name, part) for name, part in owner.named_children() if name != step)
        found += [".".join([*steps[:depth], name]) + _counted(part) for name, part in beside]
    return tuple(found) or ("no other parts",)


def _counted(part: nn.Module) -> str:
    count = sum(isinstance(module, _WEIGHTED) for module in part.modules())
    return f" ({count} Linear and Conv)" if count else ""


def _calls(module: nn.Module, calling: Calling, inputs: tuple[Tensor, ...]) -> Mapping[str, Arguments]:
    """What each part with a batch of tensors as input was called with, for those called once."""
    seen: dict[str, list[Arguments]] = {}
    with _recording(module, seen), torch.no_grad():
        args, keywords = calling.arguments(inputs)
        with suppress(Exception):  # what was called before it failed is known all the same
            module(*args, **keywords)
    return {path: calls[0] for path, calls in seen.items() if len(calls) == 1 and _has_batch(calls[0])}


def _has_batch(arguments: Arguments) -> bool:
    tensors = [leaf for leaf in pytree.tree_leaves((arguments.args, arguments.keywords)) if isinstance(leaf, Tensor)]
    return bool(tensors) and tensors[0].ndim > 0 and len(tensors[0]) > 1


@contextmanager
def _recording(module: nn.Module, seen: dict[str, list[Arguments]]) -> Iterator[None]:
    modes = [(m, m.training) for m in module.modules()]
    handles = [
        part.register_forward_pre_hook(_recorder(path, seen), with_kwargs=True)
        for path, part in module.named_modules()
        if path and any(True for _ in part.parameters())
    ]
    module.eval()
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for m, mode in modes:
            m.training = mode


def _recorder(path: str, seen: dict[str, list[Arguments]]) -> Callable[..., None]:
    def record(module: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        seen.setdefault(path, []).append(Arguments(args, keywords))

    return record
