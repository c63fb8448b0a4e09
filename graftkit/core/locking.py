"""One process at a time in a folder: a lock that the system lets go of when its process dies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from graftkit.core.errors import BusyError


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder while inside; nothing is written for it. Raises BusyError where another process holds it.

    On a system without `flock` (Windows) nothing is held.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    held = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(f"another process works in {folder}; wait for it, or name another folder") from None
        except OSError:  # a file system that knows no locks
            pass
        yield
    finally:
        os.close(held)
