"""What a file of dendrites alone tells of itself, as plain values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from graftkit.core.options import Options
from graftkit.core.signature import Signature


@dataclass(frozen=True, slots=True)
class Score:
    """One network's metric; None where the data had no such part."""

    validation: float | None
    test: float | None


@dataclass(frozen=True, slots=True)
class Scores:
    """What was measured when the dendrites were trained: of the base as given, and with them."""

    metric: str  # "accuracy", "r2", or an import path
    given: Score
    grafted: Score


@dataclass(frozen=True, slots=True)
class CarriedRecord:
    """One dendrite in the file."""

    site: str
    kind: str
    options: Options
    neurons: int | None  # how many of the site's neurons it serves; None for all
    parameters: int


@dataclass(frozen=True, slots=True)
class DendriteFileRecord:
    """Everything `graftkit inspect` shows of a file of dendrites."""

    name: str  # of the file
    bytes: int
    graftkit: str  # the version that wrote it
    base: str  # what the base was called
    base_sha256: str
    signature: Signature
    dendrites: tuple[CarriedRecord, ...]
    parameters: int
    scores: Scores | None  # None where nothing was measured

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        value = {"format": "dendrites", **asdict(self)}
        for dendrite in value["dendrites"]:
            dendrite["options"] = dict(dendrite["options"])
        return value
