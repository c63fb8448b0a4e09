"""Turns layer drop off: Python draws which layers to leave out, and a graph would leave out the same ones for ever."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

_NAMES = ("layerdrop", "layer_drop", "encoder_layerdrop", "decoder_layerdrop", "p_layerdrop")


@contextmanager
def without_layerdrop(module: nn.Module, train: bool) -> Iterator[str | None]:
    """Applies where a module or its `config` has a layer drop above zero, while captured in training."""
    found = [(owner, name, value) for owner in _owners(module) for name, value in _dropping(owner)] if train else []
    for owner, name, _ in found:
        setattr(owner, name, 0.0)
    try:
        yield "layer drop stays off in training: Python draws it, which a graph cannot hold" if found else None
    finally:
        for owner, name, value in found:
            setattr(owner, name, value)


def _owners(module: nn.Module) -> list[Any]:
    configs = {id(c): c for m in module.modules() if (c := m.__dict__.get("config")) is not None}
    return [*module.modules(), *configs.values()]


def _dropping(owner: Any) -> list[tuple[str, float]]:
    own = getattr(owner, "__dict__", {})
    return [(name, own[name]) for name in _NAMES if isinstance(own.get(name), int | float) and own[name] > 0]
