"""What a learning rule promises: it knows the live model, so it stands above it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar, Literal, Protocol

from torch import Tensor, nn

from graftkit.contracts import Build, Criterion, Inputs
from graftkit.model import GraftedModel
from graftkit.plan import Graft


class Candidates(Protocol):
    """Dendrites in training beside a network that stands still, not yet joined to it."""

    def parameters(self) -> list[nn.Parameter]:
        """What the optimizer trains."""

    def watch(self, inputs: tuple[Tensor, ...], targets: Tensor) -> bool:
        """Show the network a batch, and keep what is to be learned from it; False where no more is wanted."""

    def steps(self) -> int:
        """How many objectives an epoch has."""

    def losses(self) -> Iterator[Tensor]:
        """The objectives of one epoch, to be made small, in an order drawn anew."""

    def install(self, held_out: Iterable[tuple[Inputs, Tensor]]) -> str:
        """Graft those that prove themselves on rows they never saw; says in a line what came of it."""

    def close(self) -> None:
        """Forget what was kept."""


class Rule(Protocol):
    """How a dendrite's weights are found. A kind is a frozen dataclass whose fields are its options."""

    name: ClassVar[str]
    detaches: ClassVar[bool]  # whether errors are kept from flowing through dendrites, in any phase
    phases: ClassVar[tuple[Literal["neuron", "dendrite"], ...]]  # of one cycle, in order

    @property
    def freeze(self) -> bool:
        """Whether the network that was given stands still in every phase, as it is in evaluation."""

    def grow(
        self, model: GraftedModel, grafts: Sequence[Graft], build: Build, criterion: Criterion, *, seed: int
    ) -> Candidates | None:
        """Begin a cycle: graft at once and return None, or return candidates for a dendrite phase."""

    def trainable(self, model: GraftedModel) -> list[nn.Parameter]:
        """What the optimizer trains in a neuron phase."""
