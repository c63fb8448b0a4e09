"""The runs that a benchmark has made already: JSON lines, so that what was interrupted goes on."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

from _arms import Arm


def keep(raw: TextIO, row: str, seed: int, settings: str, arm: Arm) -> None:
    """Add a run, at once on disk."""
    raw.write(json.dumps({"row": row, "seed": seed, "settings": settings, **asdict(arm)}) + "\n")
    raw.flush()


def read(path: Path, settings: str) -> dict[str, dict[int, Arm]]:
    """From rows and seeds to the runs with these settings that are there."""
    found: dict[str, dict[int, Arm]] = defaultdict(dict)
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        run = json.loads(line)
        if run["settings"] == settings:
            found[run["row"]][run["seed"]] = Arm(run["parameters"], tuple(run["validation"]), tuple(run["test"]))
    return found
