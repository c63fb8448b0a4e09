"""What a run leaves behind as plain values: phases, measurements, what was found where, and the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from graftkit.core.options import Options
from graftkit.core.signature import Signature
from graftkit.core.values import Spending


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """One epoch of one arm: mean training loss and the validation metric after it."""

    arm: str  # "grafted", "control", "trial", or a second control: "control, not shrunk" or "control, shrunk"
    seed: int
    cycle: int  # 1, 2, ...
    phase: str  # "neuron" or "dendrite"
    epoch: int  # counted over the whole arm, 1, 2, ...
    loss: float  # the phase's own objective, mean over rows
    validation: float  # the metric on the validation rows
    learning_rate: float


@dataclass(frozen=True, slots=True)
class StepRecord:
    """How far a neuron phase has come within an epoch."""

    arm: str
    cycle: int
    epoch: int  # of this phase, 1, 2, ...
    epochs: int  # at most, in this phase
    step: int  # 1, 2, ...
    steps: int  # in each epoch


@dataclass(frozen=True, slots=True)
class PhaseRecord:
    """One finished phase: a line of history.jsonl."""

    arm: str
    seed: int
    cycle: int
    phase: str
    epochs: int
    validation: float | None  # best of the phase; None in a dendrite phase, where the network stands still
    improved: bool  # whether the best of the whole arm so far was beaten
    parameters: int  # of the network in this phase, dendrites included
    dendrites: int  # how many dendrites were in the network, over all sites
    note: str = ""  # "no candidate beat chance", "the loss became NaN", ...
    ends_growth: bool = False  # whether the note is a reason to stop


@dataclass(frozen=True, slots=True)
class Measurement:
    """One network's numbers: a row of the table."""

    validation: float
    test: float | None  # None where the data have no test part
    parameters: int
    macs: int  # multiply-adds for one row of data


@dataclass(frozen=True, slots=True)
class SeedRecord:
    """What one repetition gave."""

    seed: int
    grafted: Measurement
    control: Measurement | None
    shipped: str  # "given" or "grafted"


@dataclass(frozen=True, slots=True)
class DendriteRecord:
    """One kind of dendrites at one site, as `inspect` shows it."""

    kind: str
    options: Options
    count: int  # dendrites in cascade
    neurons: int  # how many of the site's neurons they serve
    strength: float  # mean absolute strength over the served neurons
    parameters: int
    macs: int


@dataclass(frozen=True, slots=True)
class SiteRecord:
    """One site and what it received."""

    site: str
    operator: str
    input_shape: tuple[int, ...]  # batch included, -1 where dynamic
    output_shape: tuple[int, ...]
    kernel: tuple[int, ...]  # empty for Linear
    parameters: int  # without dendrites
    macs: int
    dendrites: tuple[DendriteRecord, ...] = ()
    gain: float | None = None  # validation metric lost when this site's strengths are zero; None: not measured


@dataclass(frozen=True, slots=True)
class EdgeRecord:
    """Data flow between two sites with no other site in between; "" is the network's input or output."""

    source: str
    target: str


@dataclass(frozen=True, slots=True)
class SkippedRecord:
    """A call that cannot be a site, and why."""

    site: str
    operator: str
    reason: str


@dataclass(frozen=True, slots=True)
class Inspection:
    """Everything `graftkit inspect` shows of a model file, a run or an ONNX file."""

    name: str  # what was inspected, for a title
    format: str  # "module", "program", "onnx", "run"
    sites: tuple[SiteRecord, ...]
    skipped: tuple[SkippedRecord, ...]
    edges: tuple[EdgeRecord, ...]
    parameters: int  # of the whole model, dendrites included
    macs: int  # of all sites and dendrites, for one row of data
    notes: tuple[str, ...] = ()
    signature: Signature | None = None  # None for what was not traced

    def to_json(self) -> dict[str, Any]:
        """JSON-able form; the inverse of `from_json`."""
        value = asdict(self)
        for site in value["sites"]:
            for dendrite in site["dendrites"]:
                dendrite["options"] = dict(dendrite["options"])
        return value

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Inspection:
        """Read what `to_json` wrote. Raises KeyError or TypeError for anything else."""
        sites = tuple(
            SiteRecord(
                **{
                    **site,
                    "input_shape": tuple(site["input_shape"]),
                    "output_shape": tuple(site["output_shape"]),
                    "kernel": tuple(site["kernel"]),
                    "dendrites": tuple(
                        DendriteRecord(**{**d, "options": tuple(d["options"].items())}) for d in site["dendrites"]
                    ),
                }
            )
            for site in value["sites"]
        )
        return Inspection(
            name=value["name"],
            format=value["format"],
            sites=sites,
            skipped=tuple(SkippedRecord(**s) for s in value["skipped"]),
            edges=tuple(EdgeRecord(**e) for e in value["edges"]),
            parameters=value["parameters"],
            macs=value["macs"],
            notes=tuple(value["notes"]),
            signature=Signature.from_json(value["signature"]) if value.get("signature") else None,
        )


@dataclass(frozen=True, slots=True)
class RunReport:
    """Everything metrics.json, the terminal's table and report.html say of one `augment`."""

    name: str  # the model's name, for a title
    metric: str  # "accuracy", "r2", or an import path
    seed: int
    shipped: str  # "given" or "grafted"
    baseline: Measurement
    control: Measurement | None  # None with --no-control
    grafted: Measurement  # what ships
    best_grafted: Measurement | None  # the best network with dendrites, also where it does not ship
    seeds: tuple[SeedRecord, ...]
    phases: tuple[PhaseRecord, ...]
    epochs: tuple[EpochRecord, ...]
    inspection: Inspection
    parity: Mapping[str, float] = field(default_factory=dict)  # runtime -> largest relative difference
    runtime_metric: Mapping[str, float] = field(default_factory=dict)  # runtime -> validation metric
    warnings: tuple[str, ...] = ()
    stopped: str = ""  # why growth ended, in words
    settings: Mapping[str, Any] = field(default_factory=dict)  # data, epochs, rule, ... as given
    margin: float | None = None  # standard error of what the best grafted network gains on validation; None: no gain
    spending: Spending | None = None  # how the budget was spent, where there was one
