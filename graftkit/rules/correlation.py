"""The `correlation` rule: cascade-correlation, with the neurons frozen while dendrites learn their errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn

from graftkit.contracts import Build, Criterion
from graftkit.core.errors import PlanError
from graftkit.learning import Candidates
from graftkit.model import GraftedModel
from graftkit.plan import Graft
from graftkit.rules.candidates import CandidatePool


@dataclass(frozen=True)
class Correlation:
    """A pool of candidates learns to correlate with each neuron's error; those that beat chance are installed.

    Fahlman and Lebiere 1990; for dendrites, Brenner and Itti 2025 (Perforated Backpropagation). What a
    dendrite reads is detached, so no error flows through it to earlier layers, in any phase.

    Attributes:
        pool: candidates for each dendrite.
        train_installed: whether installed dendrites go on learning, by gradient, with the neurons.
        freeze: whether the neurons stand still afterwards, too, and strengths (and dendrites that go on) alone learn.
    """

    name: ClassVar[str] = "correlation"
    detaches: ClassVar[bool] = True
    phases: ClassVar[tuple[Literal["neuron", "dendrite"], ...]] = ("dendrite", "neuron")

    pool: int = 4
    train_installed: bool = False
    freeze: bool = False

    def __post_init__(self) -> None:
        if self.pool < 1:
            raise PlanError(f"correlation: the pool must hold 1 or more candidates, not {self.pool}")

    def refuses(self, kind: str) -> str | None:
        return "its answer is its strength, so it is silent until it is joined" if kind == "context" else None

    def grow(
        self, model: GraftedModel, grafts: Sequence[Graft], build: Build, criterion: Criterion, *, seed: int
    ) -> Candidates | None:
        return CandidatePool(model, grafts, build, criterion, size=self.pool, seed=seed)

    def trainable(self, model: GraftedModel) -> list[nn.Parameter]:
        base = [] if self.freeze else [p for p in model.base.parameters() if p.requires_grad]
        members = [d for key in model.plan.sites() for d in model.at(key).members()]
        own = [p for d in members for p in (d.parameters() if self.train_installed else d.strengths())]
        return [*base, *own]
