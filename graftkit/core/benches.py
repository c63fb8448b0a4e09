"""What a bench of files gave, as plain values."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from graftkit.core.ratio import Ratio


@dataclass(frozen=True, slots=True)
class Subject:
    """One file of a bench.

    Attributes:
        name: what it is called in tables.
        size: bytes of the file, with weights that lie beside it.
        parameters: numbers in its constants.
        macs: multiply-adds of its Conv, ConvTranspose, Gemm and MatMul nodes with constant weights, for one row of the
            bench's inputs; what follows from sizes that nobody knows before it runs counts as one. Of an If the
            costlier branch.
        nodes: how many there are, in branches, too.
    """

    name: str
    size: int
    parameters: int
    macs: int
    nodes: int


@dataclass(frozen=True, slots=True)
class Timing:
    """One file in one runtime with so many threads.

    Attributes:
        subject: its name.
        runtime, version: what ran it.
        threads: of the runtime; None leaves it to that.
        seconds: of one run: a mean for each turn.
        versus: against the first file; None for that one itself.
        memory: bytes that loading and running it takes at most, beyond those of a file that does nothing; None where
            the system does not tell.
        energy: joules of one run; None where the machine does not tell.
        trouble: why there are no numbers.
    """

    subject: str
    runtime: str
    version: str
    threads: int | None
    seconds: tuple[float, ...] = ()
    versus: Ratio | None = None
    memory: int | None = None
    energy: float | None = None
    trouble: str = ""

    @property
    def median(self) -> float:
        """Seconds of one run."""
        return statistics.median(self.seconds)

    @property
    def p90(self) -> float:
        """Seconds that nine of ten turns stay below."""
        return sorted(self.seconds)[min(len(self.seconds) - 1, int(0.9 * len(self.seconds)))]

    def to_json(self, rows: int) -> dict[str, Any]:
        """JSON-able, with latency and throughput; `rows` are those of one run."""
        plain = {name: value for name, value in asdict(self).items() if name != "seconds"}
        versus = {**asdict(self.versus), "certain": self.versus.certain} if self.versus else None
        told = {"median": self.median, "p90": self.p90, "rows_per_second": rows / self.median} if self.seconds else {}
        return {**plain, "versus": versus, **told, "turns": list(self.seconds)}


@dataclass(frozen=True, slots=True)
class BenchReport:
    """A bench.

    Attributes:
        subjects: the files, the first being what the others are compared with.
        timings: by runtime and threads, in the order of the files.
        inputs: what they were given: shapes by input name.
        rows: of one run.
        energy: where energy was read, or why it was not.
        notes: what a user has to know, one line each.
    """

    subjects: tuple[Subject, ...]
    timings: tuple[Timing, ...]
    inputs: Mapping[str, Sequence[int]]
    rows: int
    energy: str
    notes: tuple[str, ...] = ()

    def groups(self) -> dict[tuple[str, int | None], list[Timing]]:
        """The timings by runtime and threads."""
        found: dict[tuple[str, int | None], list[Timing]] = {}
        for timing in self.timings:
            found.setdefault((timing.runtime, timing.threads), []).append(timing)
        return found

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "inputs": {name: list(shape) for name, shape in self.inputs.items()},
            "rows": self.rows,
            "files": [asdict(subject) for subject in self.subjects],
            "timings": [timing.to_json(self.rows) for timing in self.timings],
            "energy": self.energy,
            "notes": list(self.notes),
        }
