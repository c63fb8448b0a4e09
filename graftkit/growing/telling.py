"""What a Grower tells of itself: scores as the user said them, to an observer or to Python's logging."""

from __future__ import annotations

import logging
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

    def phase(record: PhaseRecord) -> None:
        score = "no score" if record.validation is None else f"best score {record.validation:.4g}"
        log.info(
            "cycle %d ended after %d epochs: %s, %d dendrites, %d parameters",
            record.cycle,
            record.epochs,
            score,
            record.dendrites,
            record.parameters,
        )

    return Observer(on_phase=phase, on_warning=log.warning)
