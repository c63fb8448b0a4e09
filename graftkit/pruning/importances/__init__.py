"""What channels are worth: the table of measures."""

from graftkit.core.errors import PlanError
from graftkit.core.table import Table
from graftkit.pruning.importances.first_order import FirstOrder
from graftkit.pruning.importances.importance import Importance
from graftkit.pruning.importances.magnitude import Magnitude
from graftkit.pruning.importances.taylor import Taylor

IMPORTANCES: Table[Importance] = Table(
    "importance of channels", {kind.name: kind for kind in (FirstOrder(), Taylor(), Magnitude())}, PlanError
)

__all__ = ["IMPORTANCES", "Importance"]
