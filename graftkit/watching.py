"""Who else is told how a run goes: history.jsonl, and the loggers that were asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from graftkit.contracts import Observer
from graftkit.core.records import EpochRecord, PhaseRecord
from graftkit.loggers import LOGGERS
from graftkit.run_folder import LOGS, REQUEST, RunFolder


@contextmanager
def watched(
    observer: Observer, folder: RunFolder, loggers: Sequence[str], settings: Mapping[str, Any]
) -> Iterator[Observer]:
    """A context with an observer that tells these, too: a curve an arm and seed, a step an epoch.

    A run that goes on tells its earlier epochs again, so what an earlier process wrote for TensorBoard goes.

    Raises:
        RuntimeMissingError: there is no such logger, or its package is not installed.
        RunError: a logger cannot begin, or history.jsonl cannot be written.
    """
    kinds = [LOGGERS.find(name) for name in dict.fromkeys(loggers)]
    phases: list[PhaseRecord] = []
    with ExitStack() as stack:
        folder.clear(LOGS)
        opened = [stack.enter_context(kind.open(folder.path / LOGS, folder.path.name, _key(folder))) for kind in kinds]
        for logger in opened:
            logger.log_hyperparams(dict(settings))

        def on_epoch(record: EpochRecord, of: int) -> None:
            name = f"{record.arm.replace(', ', '_').replace(' ', '_')}/seed_{record.seed}"
            found = {f"{name}/{key}": getattr(record, key) for key in ("loss", "validation", "learning_rate")}
            for logger in opened:
                logger.log_metrics(found, step=record.epoch)
            observer.on_epoch(record, of)

        def on_phase(record: PhaseRecord) -> None:
            phases.append(record)
            folder.write_history(phases)
            observer.on_phase(record)

        yield replace(observer, on_epoch=on_epoch, on_phase=on_phase)


def _key(folder: RunFolder) -> str:
    """The same for as long as the run is the same, whoever goes on with it."""
    begun = (folder.path / REQUEST).stat().st_mtime_ns
    return hashlib.sha256(f"{folder.path} {begun}".encode()).hexdigest()[:12]
