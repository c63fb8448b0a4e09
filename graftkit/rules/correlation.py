"""The `correlation` rule: cascade-correlation, with the neurons frozen while dendrites learn their errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn

from graftkit import surgery
from graftkit.contracts import Build, Criterion
from graftkit.core.errors import PlanError
from graftkit.core.sizes import byte_count
from graftkit.learning import Candidates
from graftkit.model import GraftedModel
from graftkit.plan import Graft
from graftkit.rules.candidates import CandidatePool, Study


@dataclass(frozen=True)
class Correlation:
    """A pool of candidates learns to correlate with each neuron's error; those that beat chance are installed.

    Fahlman and Lebiere 1990; for dendrites, Brenner and Itti 2025 (Perforated Backpropagation). What a
    dendrite reads is detached, so no error flows through it to earlier layers, in any phase.

    The network is shown each row once; what candidates learn from is kept, in memory and then on disk. Of the rows that
    it is shown, those first drawn are taken, at most `rows` and as many as there is room for.

    Attributes:
        pool: candidates for each dendrite.
        rows: rows that candidates learn from at most.
        positions: of each row's maps, drawn anew for each batch that the network is shown; all where those, each with
            what the kernel covers, would take no less room.
        batch: rows in one of their steps: correlations of few rows are mostly noise.
        memory: how much of what they learn from is held in memory, as "1GB"; the rest goes to where temporary files
            lie, as long as that is half of what is free there at most. A batch that is learned from comes beside it.
        false_positives: the chance at which a candidate that is no better than noise is installed, for any neuron and
            for any neuron of a site at all; 0.01 to 0.5.
        train_installed: whether installed dendrites go on learning, by gradient, with the neurons.
        freeze: whether the neurons stand still afterwards, too, and strengths (and dendrites that go on) alone learn.
    """

    name: ClassVar[str] = "correlation"
    detaches: ClassVar[bool] = True
    phases: ClassVar[tuple[Literal["neuron", "dendrite"], ...]] = ("dendrite", "neuron")

    pool: int = 4
    rows: int = 10_000
    positions: int = 16
    batch: int = 256
    memory: str = "1GB"
    false_positives: float = 0.05
    train_installed: bool = False
    freeze: bool = False

    def __post_init__(self) -> None:
        if self.pool < 1:
            raise PlanError(f"correlation: the pool must hold 1 or more candidates, not {self.pool}")
        if min(self.rows, self.positions) < 1 or self.batch < 2:
            raise PlanError("correlation: the least are 1 row, 1 position and batches of 2 rows")
        if not 0.01 <= self.false_positives <= 0.5:
            raise PlanError(f"correlation: false_positives must be 0.01 to 0.5, not {self.false_positives}")
        byte_count(str(self.memory))

    def grow(
        self, model: GraftedModel, grafts: Sequence[Graft], build: Build, criterion: Criterion, *, seed: int
    ) -> Candidates | None:
        if len({graft.site for graft in grafts}) < len(grafts):
            raise PlanError("correlation: candidates of one kind compete at a site; give one kind for each")
        for graft, blank in zip(grafts, surgery.blank(model, grafts, build), strict=True):
            if {id(p) for p in blank.parameters()} == {id(p) for p in blank.strengths()}:
                raise PlanError(
                    f"correlation: all numbers of {graft.kind} are strengths, zero where it is installed, so nothing"
                    " that it learned would stay; the rule gradient fits"
                )
        memory = byte_count(str(self.memory))
        study = Study(self.pool, self.rows, self.positions, self.batch, memory, self.false_positives)
        return CandidatePool(model, grafts, build, criterion, study, seed=seed)

    def trainable(self, model: GraftedModel) -> list[nn.Parameter]:
        base = [] if self.freeze else [p for p in model.base.parameters() if p.requires_grad]
        members = [d for key in model.plan.sites() for d in model.at(key).members()]
        own = [p for d in members for p in (d.parameters() if self.train_installed else d.strengths())]
        return [*base, *own]
