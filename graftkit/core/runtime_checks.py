"""What a runtime makes of a file, for tables and JSON."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class RuntimeCheck:
    """One runtime's answer; what was not found out is None.

    Attributes:
        version: None where it is not installed.
        loads: whether it takes the file.
        difference: the largest to the trained model, relative to the outputs' scale.
        metric: on the validation rows, computed by the runtime.
        latency: median seconds for one row (or the rows that the file fixes) on one thread, where it has threads.
        trouble: what is wrong, in a line; of one that is not installed, how to have it.
        note: by what the file is judged, where that is not the difference, in a line.
    """

    runtime: str
    version: str | None = None
    loads: bool | None = None
    difference: float | None = None
    metric: float | None = None
    latency: float | None = None
    trouble: str | None = None
    note: str | None = None

    @property
    def installed(self) -> bool:
        return self.version is not None

    @property
    def failed(self) -> bool:
        """Whether it is there, and something is wrong."""
        return self.installed and self.trouble is not None

    def to_json(self) -> dict[str, Any]:
        finite = self.difference is not None and math.isfinite(self.difference)
        return {
            "version": self.version,
            "installed": self.installed,
            "loads": self.loads,
            "difference": self.difference if finite else None,
            "metric": self.metric,
            "latency_ms": None if self.latency is None else self.latency * 1e3,
            "trouble": self.trouble,
            "note": self.note,
        }
