"""How much energy a run takes, where the machine can tell: RAPL or a Jetson's sensors, read by zeus."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from graftkit.core.errors import RuntimeMissingError

_WINDOW = "graftkit"


class Meter:
    """Reads the processor's energy over a stretch of time, and says where from, or why it cannot.

    Attributes:
        told: what it reads, in words.
    """

    def __init__(self) -> None:
        self._monitor, self.told = _opened()

    @property
    def reads(self) -> bool:
        """Whether there is anything to read."""
        return self._monitor is not None

    def joules(self, work: Callable[[], object]) -> float | None:
        """What doing this takes, in joules; None where the machine does not tell."""
        if self._monitor is None:
            return None
        self._monitor.begin_window(_WINDOW, sync_execution=False)
        work()
        found = self._monitor.end_window(_WINDOW, sync_execution=False)
        return _sum(found)


def check_installed() -> None:
    """Raise RuntimeMissingError where zeus is not installed."""
    if find_spec("zeus") is None:
        raise RuntimeMissingError("zeus is not installed, which reads energy: pip install 'graftkit[energy]'")


def _opened() -> tuple[Any, str]:
    check_installed()
    try:
        from zeus.monitor import ZeusMonitor

        monitor = ZeusMonitor(gpu_indices=[])
        monitor.begin_window(_WINDOW, sync_execution=False)
        if _sum(monitor.end_window(_WINDOW, sync_execution=False)) is None:
            return None, "not available here: this machine has no energy counter that zeus can read"
    except Exception as error:  # its own kinds, by machine: no counters, or no right to read them
        return None, f"not available here: {(str(error).splitlines() or [type(error).__name__])[0][:160]}"
    return monitor, "the processor's counters, read by zeus; whatever else the machine does is in it"


def _sum(found: Any) -> float | None:
    """Joules of the whole board where its sensors tell, else those of all processors."""
    board = getattr(found, "soc_energy", None)
    told = vars(board) if board is not None else {}
    total = told.get("total_energy_mj")
    if total is not None:
        return float(total) / 1000
    parts = [value for name, value in told.items() if name.endswith("_mj") and value is not None]
    if parts:
        return float(sum(parts)) / 1000
    each = getattr(found, "cpu_energy", None)
    return sum(float(joules) for joules in each.values()) if each else None
