"""Growth schedules: the table."""

from __future__ import annotations

from graftkit.contracts import GrowthSchedule
from graftkit.core.errors import PlanError
from graftkit.core.table import Table
from graftkit.schedules.cycles import Cycles
from graftkit.schedules.replay import Replay

SCHEDULES: Table[type[GrowthSchedule]] = Table("growth schedule", {"cycles": Cycles, "replay": Replay}, PlanError)

__all__ = ["SCHEDULES", "Cycles", "Replay"]
