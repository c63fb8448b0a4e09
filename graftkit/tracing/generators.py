"""Keeps every generator of random numbers as it was."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def generators_kept() -> Iterator[None]:
    """Python's, torch's on each device in use, and numpy's if it is in use: afterwards as if nothing had been drawn."""
    numpy = sys.modules.get("numpy")
    pythons, numpys = random.getstate(), numpy.random.get_state() if numpy else None
    in_use = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = range(torch.cuda.device_count()) if in_use else ()
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(pythons)
        if numpy:
            numpy.random.set_state(numpys)


@contextmanager
def seeded(seed: int = 0, *, others: int = 0) -> Iterator[None]:
    """While inside, torch draws from one seed and Python and numpy from another; afterwards all is as it was."""
    numpy = sys.modules.get("numpy")
    with generators_kept():
        torch.manual_seed(seed)
        random.seed(others)
        if numpy:
            numpy.random.seed(others)
        yield
