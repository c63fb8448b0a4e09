"""What the families promise: a source, data, a dendrite, a growth schedule, a runtime, a logger."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.utils._pytree import tree_map
from torch.utils.data import DataLoader, Dataset, default_collate

from graftkit.core.records import EpochRecord, PhaseRecord, StepRecord
from graftkit.core.signature import Signature
from graftkit.core.sites import Site
from graftkit.plan import Graft

if TYPE_CHECKING:
    import onnx
    from lightning_fabric.loggers.logger import Logger

Inputs = Tensor | Sequence[Tensor] | Mapping[str, Tensor]  # a batch: of one input, of several in order, or by name
Criterion = Callable[[Tensor, Tensor], Tensor]  # (model output, targets) -> scalar loss, to be made small
Metric = Callable[[Tensor, Tensor], float]  # (all outputs, all targets) -> one number, higher is better


# ── sources ──────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class LoadedModel:
    """A model as it was found: a live module or an exported program, and where it came from.

    `provenance` is JSON-able and goes into source.json: `path` or `factory`, `format`, `sha256` (hex,
    of the file, or of the weights file for a factory; None where there is neither), `weights`.

    Attributes:
        model: a module (TorchScript modules are modules, too), or an exported program.
        name: what to call it.
        warnings: what a user has to know about how it was read, one line each.
        signature: names, types and sizes where the file itself knows them (ONNX); its ONNX output keeps them.
        metadata: the user's own metadata of an ONNX file, which its ONNX output keeps.
    """

    model: nn.Module | ExportedProgram
    provenance: Mapping[str, Any]
    name: str
    warnings: tuple[str, ...] = ()
    signature: Signature | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SourceRequest:
    """What the user asked to have read.

    Attributes:
        spec: a path, or an architecture: "package.module:factory", "timm:NAME", "hf:FOLDER".
        weights: the weights for an architecture.
        trust: run code that the file brings along.
        arch: the architecture for a file that holds weights alone.
        arch_args: arguments for the architecture, name and value as text.
        allow: further classes a pickle may name, as "package.module.Class".
        part: the path of the part to take, such as "backbone.body"; the whole where it is None.
    """

    spec: str
    weights: Path | None = None
    trust: bool = False
    arch: str | None = None
    arch_args: tuple[tuple[str, str], ...] = ()
    allow: tuple[str, ...] = ()
    part: str | None = None


class Source(Protocol):
    """An input format. A kind is a frozen dataclass without fields."""

    name: ClassVar[str]

    def recognises(self, request: SourceRequest, head: bytes) -> bool:
        """Whether this format can read it; `head` is the file's first 512 bytes, empty for a factory."""

    def load(self, request: SourceRequest) -> LoadedModel:
        """Read it. Raises SourceError."""


# ── data ─────────────────────────────────────────────────────────────────────────────────────────

# Of (inputs, targets); inputs are a tensor, a tuple of tensors in the model's order, or a dict of them by name.
Rows = Dataset[Any] | DataLoader[Any]


@dataclass(frozen=True)
class Data:
    """Training, validation and test rows, each giving (inputs, targets).

    Attributes:
        train, validation, test: map-style datasets, or loaders that are iterated as they are.
            `test` is None where there is none; it is never used for a decision.
        labels: "classes" (integers) or "values" (floats).
        classes: how many classes the labels name; None for values.
        name: the specification the data came from, as the user wrote it.
        warnings: what a user has to know about them, one line each.
    """

    train: Rows
    validation: Rows
    test: Rows | None
    labels: Literal["classes", "values"]
    classes: int | None
    name: str
    warnings: tuple[str, ...] = ()

    def example(self, rows: int = 2) -> Inputs:
        """The inputs of the first validation rows, each tensor [rows, ...]."""
        if isinstance(self.validation, DataLoader):
            inputs = next(iter(self.validation))[0]
            return tree_map(lambda tensor: torch.as_tensor(tensor)[:rows], inputs)  # type: ignore[no-any-return]
        return default_collate([self.validation[index][0] for index in range(rows)])  # type: ignore[no-any-return]


class DataSource(Protocol):
    """A data specification. A kind is a frozen dataclass without fields."""

    name: ClassVar[str]

    def recognises(self, spec: str) -> bool:
        """Whether this kind reads such a specification."""

    def load(self, spec: str, *, seed: int, input_shape: tuple[int, ...] | None) -> Data:
        """Read it. Raises DataError.

        `seed` decides a split that has to be made; `input_shape` is what the model takes (batch
        included) where that is known, so that a missing channel axis can be added.
        """


# ── dendrites ────────────────────────────────────────────────────────────────────────────────────


class Dendrite(nn.Module):
    """One branch beside the neurons of a site.

    `forward` gives its activity, in a shape that broadcasts to the neurons'; `join` brings that to the
    neurons. While every parameter in `strengths()` is zero, `join` returns the neurons unchanged, bit
    for bit (only a negative zero may turn positive). `macs` is its multiply-adds for one row of data.
    """

    macs: int
    local: ClassVar[bool]  # whether its activity at a position is made of what the site reads there, and of no other

    def forward(self, input: Tensor, neuron: Tensor, earlier: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
        """The activity, given what the site reads, what its neurons say, and earlier dendrites' activities."""
        return self.activity(self.reads(input, neuron, mask), earlier)

    def reads(self, input: Tensor, neuron: Tensor, mask: Tensor | None = None) -> Tensor:
        """What it makes its activity of; none of its parameters has a part in it."""
        raise NotImplementedError

    def activity(self, read: Tensor, earlier: Sequence[Tensor]) -> Tensor:
        """The activity, given what was read and earlier dendrites' activities."""
        raise NotImplementedError

    def felt(self, neuron: Tensor, error: Tensor) -> Tensor:
        """The error at its activity, but for a factor a neuron, given that at the neurons as they are where it joins.

        All have the neurons' shape; it may still have to be summed to the activity's.
        """
        raise NotImplementedError

    def wake(self) -> None:
        """Give random numbers to strengths without which there is no activity, to learn it before it joins."""
        raise NotImplementedError

    def join(self, neuron: Tensor, activity: Tensor) -> Tensor:
        """The neurons after the dendrite, same shape as `neuron`."""
        raise NotImplementedError

    def strengths(self) -> tuple[nn.Parameter, ...]:
        """The parameters that are zero at first and silence the dendrite while they are."""
        raise NotImplementedError

    def serve(self, neurons: Sequence[int]) -> None:
        """Serve only these neurons from now on."""
        raise NotImplementedError

    def served(self) -> Tensor:
        """Mean absolute strength for each neuron of the site, [out_channels]; not served: zero."""
        raise NotImplementedError


class DendriteKind(Protocol):
    """A kind of dendrite: a frozen dataclass whose fields are its options."""

    name: ClassVar[str]
    summary: ClassVar[str]

    def refuses(self, site: Site) -> str | None:
        """Why such a dendrite cannot be grafted at the site, None if it can."""

    def build(self, site: Site, index: int) -> Dendrite:
        """A dendrite with fresh weights; `index` earlier ones are there to read."""


Build = Callable[[Graft, Site, int], Dendrite]  # (graft, site, how many are before it) -> a fresh dendrite


# ── schedules (learning rules are in learning.py) ─────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Phase:
    """What comes next: a stretch of epochs, and whether new dendrites are grafted before it."""

    kind: Literal["neuron", "dendrite"]
    cycle: int
    epochs: int
    grow: bool


@runtime_checkable
class GrowthSchedule(Protocol):
    """Decides what comes next from what happened: history in, next phase out. Pure."""

    def next(self, history: Sequence[PhaseRecord]) -> Phase | None:
        """The next phase, None when growth has ended."""

    def over(self, phase: Phase, scores: Sequence[float]) -> bool:
        """Whether a phase with these validation scores ends before its epochs are through."""

    def why(self, history: Sequence[PhaseRecord]) -> str:
        """Why growth ended after this history, in words."""


# ── runtimes ─────────────────────────────────────────────────────────────────────────────────────


Run = Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]  # inputs by name -> all outputs in the file's order


class Session(Protocol):
    """A file that a runtime has loaded; a `Run`. What it holds goes with `close`, or with the last reference to it."""

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """All outputs of one batch, in the file's order. Raises MismatchError where the runtime fails on it."""

    def seconds(self, inputs: Mapping[str, np.ndarray], times: int) -> list[float]:
        """How long each of so many runs of one batch takes, measured where the runtime is."""

    def close(self) -> None:
        """Let go of the file; closing twice does no harm."""


class Runtime(Protocol):
    """An inference runtime that loads an ONNX file."""

    name: ClassVar[str]

    def version(self) -> str:
        """Of what would run. Raises RuntimeMissingError where that is not installed."""

    def open(self, model: bytes | Path, *, threads: int | None = None) -> Session:
        """Load a file. A model with external data has to be given as its path; `threads` None leaves it to the runtime.

        Raises RuntimeMissingError, or ExportError where the file is not loaded.
        """


# ── precisions ───────────────────────────────────────────────────────────────────────────────────


Feed = Mapping[str, np.ndarray]  # one batch: inputs by name


@dataclass(frozen=True)
class Lowered:
    """A model in smaller numbers.

    Attributes:
        model: whole, of the standard domain.
        notes: what a user has to know about it, one line each.
    """

    model: onnx.ModelProto
    notes: tuple[str, ...] = ()


class Precision(Protocol):
    """A way to write a file in smaller numbers. A kind is a frozen dataclass without fields."""

    name: ClassVar[str]
    summary: ClassVar[str]
    opset: ClassVar[int]  # the oldest that has what it writes

    def lower(self, model: onnx.ModelProto, feeds: Sequence[Feed]) -> Iterator[Lowered]:
        """The model in smaller numbers, in forms to be tried in turn: the first that loses little enough is shipped.

        Inputs and outputs keep their names and types, and so do values that nodes give; all operators are the
        standard's own.

        Args:
            model: a whole model of the standard domain, which is not changed.
            feeds: batches of training rows, for what has to be measured.

        Raises ExportError where there is nothing that would become smaller.
        """


# ── watching ─────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Observer:
    """Where progress goes; every hook does nothing by default."""

    on_stage: Callable[[str], None] = field(default=lambda text: None)  # "tracing", "exporting", ...
    on_epoch: Callable[[EpochRecord, int], None] = field(default=lambda record, of: None)  # of: epochs in phase
    on_phase: Callable[[PhaseRecord], None] = field(default=lambda record: None)
    on_warning: Callable[[str], None] = field(default=lambda text: None)
    on_step: Callable[[StepRecord], None] | None = None  # asked after each step; None costs nothing


class LoggerKind(Protocol):
    """A place where curves are watched."""

    name: ClassVar[str]

    def open(self, folder: Path, title: str, key: str) -> AbstractContextManager[Logger]:
        """A context with Lightning Fabric's logger of it, which is flushed and closed in the end.

        Args:
            folder: where files go; it need not be there.
            title: what people see.
            key: the same for a run that goes on.

        Raises RuntimeMissingError for a package that is not installed, RunError where the place cannot be reached.
        """
