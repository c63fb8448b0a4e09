"""Which of the processes that torchrun started this one is, before torch is imported."""

from __future__ import annotations

import os


def number() -> int:
    """0 for the first one, or where there is one alone."""
    return int(os.environ.get("RANK", "0")) if "TORCHELASTIC_RUN_ID" in os.environ else 0


def count() -> int:
    """How many there are."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def name() -> str:
    """What begins a line that this process says: the program, and of several processes which one."""
    return f"graftkit (process {number()})" if number() else "graftkit"
