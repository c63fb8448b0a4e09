"""Where a run's curves can also be watched: the table."""

from __future__ import annotations

from graftkit.contracts import LoggerKind
from graftkit.core.errors import RuntimeMissingError
from graftkit.core.table import Table
from graftkit.loggers.tensorboard import TensorBoard
from graftkit.loggers.wandb import WeightsAndBiases

LOGGERS: Table[LoggerKind] = Table(
    "logger", {kind.name: kind for kind in (TensorBoard(), WeightsAndBiases())}, RuntimeMissingError
)

__all__ = ["LOGGERS"]
