"""What the trials of a sweep gave as plain values, and which of their networks no other one beats at its size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from graftkit.core.records import Measurement

COSTS = ("parameters", "macs")  # what a network's accuracy may be weighed against: fields of Measurement


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """One trial: what was set, and what came of it.

    Attributes:
        number: 0, 1, ...; one that goes on after a break keeps it.
        state: "complete", "failed" or "running".
        settings: what was searched, as it would be written on the command line.
        grafted: the best network with dendrites, mean over seeds; None where nothing was grafted.
        control: the same training without dendrites, or the pruned network without them, mean over seeds.
        given: the model as given; None where its weights were drawn at random.
        shipped: "given", "pruned" or "grafted".
        folder: the run's folder, within that of the sweep.
        trouble: why it failed.
    """

    number: int
    state: str
    settings: Mapping[str, str]
    grafted: Measurement | None = None
    control: Measurement | None = None
    given: Measurement | None = None
    shipped: str = ""
    folder: str = ""
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Point:
    """A network on a front: with dendrites or plain, from which trial (None: the model as given)."""

    measured: Measurement
    grafted: bool
    trial: TrialRecord | None


@dataclass(frozen=True, slots=True)
class SweepReport:
    """All trials of a sweep so far.

    Attributes:
        name: the model's name.
        metric: what validation and test scores are.
        cost: "parameters" or "macs".
        wanted: trials that were asked for.
        trials: all of them, by number.
        command: what they are runs of: "augment" or "compress".
    """

    name: str
    metric: str
    cost: str
    wanted: int
    trials: tuple[TrialRecord, ...]
    command: str = "augment"

    @property
    def plain(self) -> str:
        """What a trial's network without dendrites is: as a word of its own."""
        return "control" if self.command == "augment" else "pruned"

    def price(self, measured: Measurement) -> int:
        """What a network costs."""
        return int(getattr(measured, self.cost))

    def points(self, *, grafted: bool) -> list[Point]:
        """All networks with dendrites, or all without them: the controls, and the model as given."""
        if grafted:
            return [Point(t.grafted, True, t) for t in self.trials if t.grafted is not None]
        plain = [Point(t.control, False, t) for t in self.trials if t.control is not None]
        given = next((t.given for t in self.trials if t.given is not None), None)
        same = given is not None and all(t.given in (None, given) for t in self.trials)
        return [*([Point(given, False, None)] if same and given is not None else []), *plain]

    def front(self, *, grafted: bool) -> list[Point]:
        """The networks that validate better than every cheaper or equally cheap one, the cheapest first."""
        found: list[Point] = []
        order = sorted(self.points(grafted=grafted), key=lambda p: (self.price(p.measured), -p.measured.validation))
        for point in order:
            if not found or point.measured.validation > found[-1].measured.validation:
                found.append(point)
        return found

    def to_json(self) -> dict[str, Any]:
        """JSON-able form, with both fronts as numbers of trials (null: the model as given)."""
        fronts = {
            name: [None if point.trial is None else point.trial.number for point in self.front(grafted=grafted)]
            for name, grafted in (("front", True), ("plain_front", False))
        }
        return {**asdict(self), **fronts}


def mean(measured: Sequence[Measurement]) -> Measurement:
    """The mean of several networks' numbers, sizes rounded; no test score where one is no number."""
    tests = [m.test for m in measured if m.test is not None and math.isfinite(m.test)]
    count = len(measured)
    return Measurement(
        validation=sum(m.validation for m in measured) / count,
        test=sum(tests) / len(tests) if len(tests) == count else None,
        parameters=round(sum(m.parameters for m in measured) / count),
        macs=round(sum(m.macs for m in measured) / count),
    )
