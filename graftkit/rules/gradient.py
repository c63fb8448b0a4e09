"""The `gradient` rule: new dendrites and the whole network are trained together by gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn

from graftkit import surgery
from graftkit.contracts import Build, Criterion
from graftkit.learning import Candidates
from graftkit.model import GraftedModel
from graftkit.plan import Graft


@dataclass(frozen=True)
class Gradient:
    """Graft at zero strength, then train everything; errors flow through dendrites like any layer.

    Attributes:
        freeze: whether the network stands still, as it is in evaluation, and dendrites alone learn.
    """

    name: ClassVar[str] = "gradient"
    detaches: ClassVar[bool] = False
    phases: ClassVar[tuple[Literal["neuron", "dendrite"], ...]] = ("neuron",)

    freeze: bool = False

    def grow(
        self, model: GraftedModel, grafts: Sequence[Graft], build: Build, criterion: Criterion, *, seed: int
    ) -> Candidates | None:
        surgery.graft(model, grafts, build, seed=seed)
        return None

    def trainable(self, model: GraftedModel) -> list[nn.Parameter]:
        learning = model.dendrites if self.freeze else model
        return [parameter for parameter in learning.parameters() if parameter.requires_grad]
