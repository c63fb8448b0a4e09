"""TensorBoard's event files, by Lightning Fabric's logger."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from graftkit.core.errors import RuntimeMissingError

if TYPE_CHECKING:
    from lightning_fabric.loggers.logger import Logger


class TensorBoard:
    """Event files in the run's folder; `tensorboard --logdir runs` shows all runs."""

    name: ClassVar[str] = "tensorboard"

    @contextmanager
    def open(self, folder: Path, title: str, key: str) -> Iterator[Logger]:
        """A context with a logger whose files lie in the folder itself. Raises RuntimeMissingError."""
        from lightning_fabric.loggers.tensorboard import TensorBoardLogger

        try:
            logger = TensorBoardLogger(folder, name="", version="", default_hp_metric=False)
        except ModuleNotFoundError as error:
            raise RuntimeMissingError("TensorBoard is not installed: pip install 'graftkit[tensorboard]'") from error
        try:
            yield logger
        finally:
            logger.finalize("success")
