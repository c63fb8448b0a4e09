"""Growth schedules: the table."""

from __future__ import annotations

from graftkit.contracts import GrowthSchedule
from graftkit.core.errors import PlanError
from graftkit.core.table import Table
from graftkit.schedules.cycles import Cycles
from graftkit.schedules.plateau import Plateau
from graftkit.schedules.replay import Replay
from graftkit.schedules.rounds import Rounds
from graftkit.schedules.when import When

SCHEDULES: Table[type[GrowthSchedule]] = Table(
    "growth schedule",
    {"cycles": Cycles, "plateau": Plateau, "replay": Replay, "rounds": Rounds, "when": When},
    PlanError,
)

__all__ = ["SCHEDULES", "Cycles", "Plateau", "Replay", "Rounds", "When"]
