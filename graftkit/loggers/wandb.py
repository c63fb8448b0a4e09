"""Weights & Biases, by Lightning's logger."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from graftkit.core.errors import RunError, RuntimeMissingError

if TYPE_CHECKING:
    from lightning_fabric.loggers.logger import Logger

_PROJECT = "graftkit"


class WeightsAndBiases:
    """A run of the project `graftkit`; where it goes, and as whom, is as `wandb login` and WANDB_... say."""

    name: ClassVar[str] = "wandb"

    @contextmanager
    def open(self, folder: Path, title: str, key: str) -> Iterator[Logger]:
        """A context with a logger that goes on with the run of this key. Raises RuntimeMissingError, RunError."""
        try:
            import wandb
            from pytorch_lightning.loggers import WandbLogger
        except ModuleNotFoundError as error:
            raise RuntimeMissingError("Weights & Biases is not installed: pip install 'graftkit[wandb]'") from error
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                folder.mkdir(parents=True, exist_ok=True)
                logger = WandbLogger(name=title, save_dir=folder, project=_PROJECT, id=key, resume="allow")
                run = logger.experiment  # begins it
        except (wandb.Error, OSError) as error:
            raise RunError(
                f"Weights & Biases does not begin a run: {error} (`wandb login`, or WANDB_MODE=offline keeps it here)"
            ) from error
        try:
            yield logger
        finally:
            run.finish()
