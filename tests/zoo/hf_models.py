"""transformers' architectures, from tiny configurations that are built here; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Iterator

from . import hf_other, hf_text
from .case import Case


def cases() -> Iterator[Case]:
    """Every architecture of `hf_text` and `hf_other`."""
    for architecture in (*hf_text.architectures(), *hf_other.architectures()):
        yield from architecture.cases()
