"""What a run's networks do with few samples and with corrupted inputs, as plain values."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

Scores = Mapping[str, float]  # the metric by network; NaN where outputs were no numbers
CLEAN, ALL = "clean", "all"
_TELLING = 3
_T = {2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}  # by degrees of freedom
_T_BEYOND = 2.23


@dataclass(frozen=True, slots=True)
class Gain:
    """What one network's metric is above another's.

    Attributes:
        value: the difference; NaN where one of the two has no score.
        error: its standard error, None where that cannot be told.
        pairs: of measurements that the error was found from: seeds, or groups of rows.
    """

    value: float
    error: float | None
    pairs: int

    @property
    def sure(self) -> bool:
        """Whether the difference is another one than none, in 95 of 100 cases (Student's t); two pairs never tell."""
        if self.error is None or self.pairs < _TELLING or math.isnan(self.value):
            return False
        return abs(self.value) > _T.get(self.pairs - 1, _T_BEYOND) * self.error


@dataclass(frozen=True, slots=True)
class StrengthRecord:
    """One corruption at one strength.

    Attributes:
        corruption: its name.
        strength: 1 to 5.
        level: in the corruption's unit.
        scores: of each network.
    """

    corruption: str
    strength: int
    level: float
    scores: Scores


@dataclass(frozen=True, slots=True)
class CorruptedRecord:
    """All networks on corrupted rows.

    Attributes:
        part: "test" or "validation".
        rows: how many.
        clean: of each network on the rows as they are.
        strengths: each corruption at each strength.
        gains: of the last network, by whom it is compared with and then by corruption: "clean", a name, or, where the
            metric is a share, "all", the mean over all corruptions and strengths. The error is that of rows.
    """

    part: str
    rows: int
    clean: Scores
    strengths: tuple[StrengthRecord, ...]
    gains: Mapping[str, Mapping[str, Gain]]

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> CorruptedRecord:
        """Read its JSON. Raises KeyError, TypeError or AttributeError for anything else."""
        gains = {name: {key: Gain(**gain) for key, gain in own.items()} for name, own in value["gains"].items()}
        strengths = tuple(StrengthRecord(**record) for record in value["strengths"])
        return CorruptedRecord(**{**value, "strengths": strengths, "gains": gains})

    @property
    def corruptions(self) -> tuple[str, ...]:
        """Their names, in order."""
        return tuple(dict.fromkeys(record.corruption for record in self.strengths))

    def mean(self, corruption: str | None = None) -> dict[str, float]:
        """Each network's mean over the strengths of a corruption, of all where none is named."""
        found = [record.scores for record in self.strengths if corruption in (None, record.corruption)]
        return {name: statistics.fmean(scores[name] for scores in found) for name in self.clean}


@dataclass(frozen=True, slots=True)
class FewRecord:
    """Networks trained on a share of the training rows.

    Attributes:
        share: of the rows.
        rows: how many.
        seed: of the choice of rows, of the weights, and of training.
        epochs: of the first training; the other phases are as much longer than in the run.
        tested: rows that the scores are of.
        validation, test: of each network that there is; `test` is empty where there are no test rows.
    """

    share: float
    rows: int
    seed: int
    epochs: int
    tested: int
    validation: Scores
    test: Scores

    @property
    def scores(self) -> Scores:
        """On test rows, on validation rows where there are none."""
        return self.test or self.validation


@dataclass(frozen=True, slots=True)
class EvaluationReport:
    """What `evaluate` found of a run.

    Attributes:
        name: the model's.
        metric: its name.
        parameters: of each network, in the order in which they are shown; the last is compared with the others.
        corrupted: None where it was not asked for.
        few: by share and seed; empty where it was not asked for.
        start: what few samples are learned from: "fresh" weights, or the "given" ones.
        notes: what the user has to know, one line each.
        settings: what was asked for, by part: "corruptions", "few".
    """

    name: str
    metric: str
    parameters: Mapping[str, int]
    corrupted: CorruptedRecord | None = None
    few: tuple[FewRecord, ...] = ()
    start: str = "fresh"
    notes: tuple[str, ...] = ()
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def shares(self) -> tuple[float, ...]:
        """Of the training rows, the smallest first."""
        return tuple(sorted({record.share for record in self.few}))

    @property
    def trained(self) -> tuple[str, ...]:
        """The networks that few samples taught; the last is compared with the others."""
        return tuple(dict.fromkeys(name for record in self.few for name in record.validation))

    def scores(self, share: float, name: str) -> list[float]:
        """A network's scores with a share, by seed, of the seeds that have it."""
        return [record.scores[name] for record in self._at(share) if name in record.scores]

    def gain(self, share: float, ours: str, theirs: str) -> Gain | None:
        """What one network gains over another with a share, over the seeds that have both; None where none has.

        Seeds share their test rows, so of a share of right answers the error is one row's worth at least.
        """
        both = [record for record in self._at(share) if ours in record.scores and theirs in record.scores]
        if not both:
            return None
        least = 1 / both[0].tested if self.metric == "accuracy" else 0.0
        return paired([r.scores[ours] for r in both], [r.scores[theirs] for r in both], least)

    def rows(self, share: float) -> int:
        """How many rows a share is."""
        return self._at(share)[0].rows

    def seeds(self, share: float) -> int:
        """How many seeds there are of a share."""
        return len(self._at(share))

    def _at(self, share: float) -> list[FewRecord]:
        return sorted((record for record in self.few if record.share == share), key=lambda record: record.seed)

    def to_json(self) -> dict[str, Any]:
        """JSON-able form, null for what is no number; `from_json` reads it."""
        plain: dict[str, Any] = _without_nan(asdict(self))
        return plain

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> EvaluationReport:
        """Read what `to_json` wrote. Raises KeyError, TypeError or AttributeError for anything else."""
        corrupted = value["corrupted"]
        return EvaluationReport(
            **{
                **value,
                "corrupted": None if corrupted is None else CorruptedRecord.from_json(_with_nan(corrupted)),
                "few": tuple(FewRecord(**_with_nan(record)) for record in value["few"]),
                "notes": tuple(value["notes"]),
            }
        )

    def with_what_is_missing(self, earlier: EvaluationReport) -> EvaluationReport:
        """The part that was not asked for as an earlier evaluation of the same networks found it."""
        if earlier.parameters != self.parameters:
            return self
        return replace(
            self,
            corrupted=self.corrupted or earlier.corrupted,
            few=self.few or earlier.few,
            start=self.start if self.few else earlier.start,
            notes=tuple(dict.fromkeys((*earlier.notes, *self.notes))),
            settings={**earlier.settings, **self.settings},
        )

    def only(self, parts: Sequence[str]) -> EvaluationReport:
        """The same with these parts alone."""
        return replace(
            self,
            corrupted=self.corrupted if "corruptions" in parts else None,
            few=self.few if "few" in parts else (),
        )


def paired(ours: Sequence[float], theirs: Sequence[float], least: float = 0.0) -> Gain:
    """The mean difference with its standard error, `least` at least; None for a single pair."""
    gains = [a - b for a, b in zip(ours, theirs, strict=True)]
    error = max(least, statistics.stdev(gains) / len(gains) ** 0.5) if len(gains) > 1 else None
    return Gain(statistics.fmean(gains), error, len(gains))


def _without_nan(value: Any) -> Any:
    """JSON has no word for what is no number."""
    if isinstance(value, Mapping):
        return {name: _without_nan(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _with_nan(record: Mapping[str, Any]) -> dict[str, Any]:
    """Scores and values that are null become NaN again; errors stay None."""

    def numbers(value: Any, name: str) -> Any:
        if isinstance(value, Mapping):
            return {key: numbers(each, key) for key, each in value.items()}
        if isinstance(value, list):
            return [numbers(each, name) for each in value]
        return math.nan if value is None and name != "error" else value

    return {name: numbers(value, name) for name, value in record.items()}
