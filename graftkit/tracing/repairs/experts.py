"""Has transformers' mixtures of experts computed as batched products: their other ways have no form as a graph."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

_ATTRIBUTE, _EXPORTABLE = "_experts_implementation", "batched_mm"


@contextmanager
def batched_experts(module: nn.Module, train: bool) -> Iterator[str | None]:
    """Applies where a module's `config` says how experts are computed (Mixtral, Qwen-MoE); the numbers are the same."""
    configs = {id(c): c for m in module.modules() if hasattr(c := m.__dict__.get("config"), _ATTRIBUTE)}
    before: list[tuple[Any, Any]] = [(config, getattr(config, _ATTRIBUTE)) for config in configs.values()]
    for config, _ in before:
        setattr(config, _ATTRIBUTE, _EXPORTABLE)
    try:
        yield None
    finally:
        for config, value in reversed(before):
            setattr(config, _ATTRIBUTE, value)
