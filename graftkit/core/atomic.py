"""Writes files so that a kill at any moment leaves the old one or the new one, never half."""

from __future__ import annotations

import os
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
