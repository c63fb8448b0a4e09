"""Spares transformers' encoders a mask that nobody gave: the library writes one out only while a model is traced."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from torch import nn

_LIBRARY, _ASKED = "transformers.masking_utils", "_ignore_bidirectional_mask_sdpa"


@contextmanager
def without_needless_mask(module: nn.Module, train: bool) -> Iterator[str | None]:
    """Applies to attention both ways, without a mask and over the whole sequence, as the library itself does elsewhere.

    Some of its models fail with any mask; for the others it is a constant less in the graph.
    """
    library = sys.modules.get(_LIBRARY)  # not loaded, it has no part in this model
    asked = getattr(library, _ASKED, None)
    if asked is None:
        yield None
        return

    def ignored(padding_mask: Any, *rest: Any, **more: Any) -> Any:
        """Versions differ in what comes next: the length, and the size of a window."""
        window = more.get("local_attention_size", rest[1] if len(rest) > 1 else None)
        return (padding_mask is None and window is None) or asked(padding_mask, *rest, **more)

    with mock.patch.object(library, _ASKED, ignored):
        yield None
