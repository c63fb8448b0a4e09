"""What a Grower tells of itself: scores as the user said them, to an observer or to Python's logging."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from graftkit.contracts import Observer
from graftkit.core.records import EpochRecord, PhaseRecord

Record = TypeVar("Record", EpochRecord, PhaseRecord)


def signed(record: Record, sign: float) -> Record:
    """A record with the score as the user told it."""
    return record if record.validation is None else replace(record, validation=sign * record.validation)


def signed_observer(observer: Observer, sign: float) -> Observer:
    """Told of scores as the user told them."""
    return replace(
        observer,
        on_epoch=lambda record, of: observer.on_epoch(signed(record, sign), of),
        on_phase=lambda record: observer.on_phase(signed(record, sign)),
    )


def to_logging() -> Observer:
    """Phases and troubles go to Python's logging."""
    log = logging.getLogger("graftkit")
    return told(log.info, log.warning)


def told(info: Callable[[str], None], warn: Callable[[str], None]) -> Observer:
    """Phases and troubles go to these, in words."""

    def phase(record: PhaseRecord) -> None:
        score = "no score" if record.validation is None else f"best score {record.validation:.4g}"
        size = f"{record.dendrites} dendrites, {record.parameters:,} parameters"
        info(f"growth: phase {record.cycle} ended after {record.epochs} epochs: {score}, {size}")

    return Observer(on_phase=phase, on_warning=warn)
