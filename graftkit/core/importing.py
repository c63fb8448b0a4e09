"""Makes folders importable for as long as code that the user named or trusts is being loaded."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def importable(*folders: Path) -> Iterator[None]:
    """Put the folders, first one first, before everything else on Python's path, then put the path back."""
    before = list(sys.path)
    sys.path[:0] = [str(folder.resolve()) for folder in folders]
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = before
