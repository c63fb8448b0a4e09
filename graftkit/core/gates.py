"""What gates at several thresholds cost and save, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from graftkit.core.ratio import Ratio


@dataclass(frozen=True, slots=True)
class GateTrial:
    """One threshold.

    Attributes:
        threshold: how sure the network without dendrites has to be of a row; above 1 no row is.
        share: of the validation rows, those that need the dendrites.
        metric: on the validation rows.
        latency: the time of one row over that of the ordinary file, in a mix of rows that has this share.
    """

    threshold: float
    share: float
    metric: float
    latency: Ratio


@dataclass(frozen=True, slots=True)
class GateReport:
    """What was measured before a gate was shipped, or was not.

    Attributes:
        trials: by how many rows need the dendrites, fewest first; the first runs them for none, the last for all.
        before: the validation metric of the ordinary file.
        allowed: how much of it may be lost.
        best: where the fastest trial is that loses no more and runs the dendrites for some rows.
        test: the test metric of the ordinary file and of the best gate, which decided nothing; None without test rows.
        runtime, threads: where time was measured.
        rows: of validation rows, one after the other, in which it was.
    """

    trials: tuple[GateTrial, ...]
    before: float
    allowed: float
    best: int
    test: tuple[float, float] | None
    runtime: str
    threads: int
    rows: int

    @property
    def chosen(self) -> GateTrial:
        """The best trial."""
        return self.trials[self.best]

    @property
    def pays(self) -> bool:
        """Whether the best gate is measured to save time."""
        return self.chosen.latency.high < 1

    @property
    def base_is_enough(self) -> bool:
        """Whether the network without any dendrites loses no more than that."""
        return self.before - self.trials[0].metric <= self.allowed

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        test: Mapping[str, float] | None = None
        if self.test is not None:
            test = {"before": self.test[0], "after": self.test[1]}
        plain = {**asdict(self), "trials": [asdict(trial) for trial in self.trials], "test": test}
        return {**plain, "chosen": asdict(self.chosen), "pays": self.pays}
