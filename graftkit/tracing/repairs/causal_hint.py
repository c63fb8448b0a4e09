"""Spares torch's own transformer layers the question whether a mask is causal, which only its values could answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from torch import nn
from torch.nn.modules import transformer


@contextmanager
def without_causal_hint(module: nn.Module, train: bool) -> Iterator[str | None]:
    """Applies to `nn.TransformerEncoder` and `nn.TransformerDecoder` with a mask, which is applied as it is anyway."""

    def unknown(mask: Any, is_causal: bool | None = None, size: int | None = None) -> bool:
        return is_causal is True

    with mock.patch.object(transformer, "_detect_is_causal_mask", unknown):
        yield None
