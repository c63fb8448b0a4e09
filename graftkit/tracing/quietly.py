"""Keeps torch from saying what is known to be harmless while a model is traced."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

import torch

from graftkit.core.pause import no_collection

# Harmless, and nothing a user could act on.
_KNOWN_WARNINGS = (
    r"The tensor attributes? .* (was|were) assigned during export",  # they are put back
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without torch's warnings that are known to be harmless, and without its fused attention kernels.

    The fused encoder layer of `nn.TransformerEncoderLayer` would hide its Linear calls.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)  # torch logs the traceback of what is raised, and told in a line, anyway
    try:
        with no_collection(), warnings.catch_warnings():
            for message in _KNOWN_WARNINGS:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        logging.disable(before)
