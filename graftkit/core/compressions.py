"""What compressing a model gave, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from graftkit.core.records import Inspection, Measurement

# What the networks of a compression are called.
GIVEN, PRUNED, GRAFTED, SCRATCH = "given", "pruned", "pruned + dendrites", "same shape from scratch"


@dataclass(frozen=True, slots=True)
class NetworkRecord:
    """One network: a row of the table.

    Attributes:
        name: one of those above.
        validation, test: the metric; None where there are no test rows.
        parameters, macs: by count, for one row.
        size: bytes of its ONNX file; None where it was not measured.
        memory: bytes at most, beyond those of a file that does nothing; None where it was not or cannot be measured.
        latency, p90: seconds of one row in onnxruntime on one thread.
        versus: its time over that of the given network: median, and the limits that 99 of 100 such ratios lie in.
        energy: joules for one row; None where the machine does not tell.
        epochs: trained for, in this run.
    """

    name: str
    validation: float
    test: float | None
    parameters: int
    macs: int
    size: int | None = None
    memory: int | None = None
    latency: float | None = None
    p90: float | None = None
    versus: tuple[float, float, float] | None = None
    energy: float | None = None
    epochs: int = 0

    @property
    def measurement(self) -> Measurement:
        return Measurement(self.validation, self.test, self.parameters, self.macs)


@dataclass(frozen=True, slots=True)
class LayerRecord:
    """A layer before and after: its outputs, and how many of its neurons have dendrites."""

    name: str
    before: int
    after: int
    dendrites: int = 0


@dataclass(frozen=True, slots=True)
class ContestRecord:
    """How dendrites stood against the channels that they would replace.

    Attributes:
        dendrites: the loss on validation rows that those bought take away, for each unit of the target's cost.
        channels: the loss that the channels take away that had to go for them, for each unit.
        bought: grafts.
        gain: validation metric with them less that of the pruned network of the same size; None where not trained.
        error: standard error of that gain.
    """

    dendrites: float | None
    channels: float
    bought: int
    gain: float | None = None
    error: float | None = None


@dataclass(frozen=True, slots=True)
class SizeRecord:
    """One size: the pruned network there, and the one with dendrites if they were tried.

    Attributes:
        share: of the given model's cost, as it was asked for.
        amount: in the cost's unit.
        pruned, grafted, scratch: rows of the table.
        contest: how dendrites and channels compared.
        chosen: "pruned" or "grafted", by validation alone.
    """

    share: float
    amount: float
    pruned: NetworkRecord
    grafted: NetworkRecord | None = None
    scratch: NetworkRecord | None = None
    contest: ContestRecord | None = None
    chosen: str = "pruned"

    @property
    def best(self) -> NetworkRecord:
        return self.grafted if self.chosen == "grafted" and self.grafted else self.pruned


@dataclass(frozen=True, slots=True)
class CompressionReport:
    """Everything that a compression gave.

    Attributes:
        name: the model's.
        metric: its name.
        cost, unit: in what the target is, and its unit.
        given: the model as given.
        sizes: of each seed and size, in the order they were reached; for one target and seed there is one.
        seeds: of each of `sizes`.
        shipped: which of `sizes` the files are of.
        knee: which of `sizes` is the knee of the front; None where there is no front.
        layers: before and after, of what ships.
        kept: layers whose width stays, with the reason.
        inspection: of what ships.
        parity: largest relative difference of the file to the trained model, by runtime.
        settings: what was asked for.
        notes: what the user has to know.
    """

    name: str
    metric: str
    cost: str
    unit: str
    given: NetworkRecord
    sizes: tuple[SizeRecord, ...]
    seeds: tuple[int, ...]
    shipped: int
    knee: int | None
    layers: tuple[LayerRecord, ...]
    kept: Mapping[str, str]
    inspection: Inspection
    parity: Mapping[str, float]
    settings: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    @property
    def ships(self) -> SizeRecord:
        return self.sizes[self.shipped]

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        plain = asdict(self)
        return {**plain, "inspection": self.inspection.to_json()}
