"""Writes files so that a kill at any moment leaves the old one or the new one, never half."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from graftkit.core.errors import RunError


def write_bytes(path: Path, content: bytes) -> None:
    """Write to a temporary name beside `path`, flush to disk, then rename. Raises RunError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RunError(f"{path} cannot be written: {error.strerror or error}") from error


def write_text(path: Path, content: str) -> None:
    """`write_bytes` of UTF-8 text."""
    write_bytes(path, content.encode())


@contextmanager
def renamed_at_the_end(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`; what the block wrote under it is renamed to `path` at the end.

    Where the block fails, that file goes and `path` stays what it was. Raises RunError where it cannot be renamed.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    try:
        yield draft
        try:
            draft.replace(path)
        except OSError as error:
            raise RunError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        draft.unlink(missing_ok=True)
