"""Which of a model's inputs may be corrupted, as what, and what their numbers are like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from graftkit import training
from graftkit.contracts import Rows
from graftkit.core.errors import DataError
from graftkit.corruptions import CORRUPTIONS, Corruption, Form, Scale
from graftkit.evaluating.networks import Network

_FORMS: Mapping[int, Form] = {2: "values", 3: "series", 4: "image"}  # by the number of dimensions, rows included
_LEAST: Mapping[Form, int] = {"values": 2, "series": 2, "image": 3}


@dataclass(frozen=True, eq=False)
class Ends:
    """What may be corrupted of a model's inputs: form and scale by position."""

    forms: Mapping[int, Form]
    scales: Mapping[int, Scale]

    def corruptions(self) -> list[Corruption]:
        """Those that go with any of the inputs."""
        forms = set(self.forms.values())
        return [kind for kind in CORRUPTIONS.values() if forms & set(kind.forms)]

    def corrupted(
        self, inputs: Sequence[Tensor], kind: Corruption, level: float, generator: torch.Generator
    ) -> list[Tensor]:
        """A batch, corrupted where the kind goes with an input."""
        return [
            kind.apply(tensor, level, self.scales[at], generator) if self.forms.get(at) in kind.forms else tensor
            for at, tensor in enumerate(inputs)
        ]


def ends_of(network: Network, rows: Rows, form: Form | None, time: int | None) -> Ends:
    """What of the inputs may be corrupted, and what their numbers are like.

    Of several inputs those that hold zeros and ones alone are masks, and stay as they are.

    Raises DataError where nothing may be corrupted.
    """
    ports = network.model.traced.signature.inputs
    first = network.model.arrange(next(iter(training.batches(rows, 2)))[0])
    forms: dict[int, Form] = {}
    for at, tensor in enumerate(first):
        found = form or _FORMS.get(tensor.ndim)
        if tensor.is_floating_point() and found is not None and tensor.ndim >= _LEAST[found]:
            forms[at] = found
    scales = _scales(network, rows, forms, time)
    kept = {at: own for at, own in scales.items() if len(first) == 1 or not own.mask}
    if not kept:
        told = "; ".join(port.text() for port in ports)
        raise DataError(
            f"no input is {_an(form)} ({told}), so there is nothing to corrupt; name the --form if one is, or leave"
            " corruptions out with --only few"
        )
    return Ends({at: forms[at] for at in kept}, {at: own.scale for at, own in kept.items()})


def _an(form: Form | None) -> str:
    return {"image": "an image", "series": "a series", "values": "a row of numbers"}.get(
        form or "", "an image, a series or a row of numbers"
    )


@dataclass
class _Sums:
    """Sums over batches, for each channel or feature."""

    time: int
    count: int = 0
    mask: bool = True
    low: Tensor = field(default_factory=lambda: torch.zeros(()))
    high: Tensor = field(default_factory=lambda: torch.zeros(()))
    sum: Tensor = field(default_factory=lambda: torch.zeros(()))
    squares: Tensor = field(default_factory=lambda: torch.zeros(()))

    def see(self, batch: Tensor, dims: list[int]) -> None:
        low, high, exact = batch.amin(dims, True), batch.amax(dims, True), batch.double()
        self.low = torch.minimum(self.low, low) if self.count else low
        self.high = torch.maximum(self.high, high) if self.count else high
        self.sum = self.sum + exact.sum(dims, True)
        self.squares = self.squares + exact.square().sum(dims, True)
        self.count += batch.numel() // low.numel()
        self.mask &= bool(((batch == 0) | (batch == 1)).all())

    @property
    def scale(self) -> Scale:
        mean = self.sum / self.count
        spread = (self.squares / self.count - mean.square()).clamp(min=0).sqrt()
        return Scale(self.low, self.high, mean.to(self.low.dtype), spread.to(self.low.dtype), self.time)


def _scales(network: Network, rows: Rows, forms: Mapping[int, Form], time: int | None) -> dict[int, _Sums]:
    """What each input's numbers are like over all rows, in one pass."""
    found: dict[int, _Sums] = {}
    for inputs, _ in training.batches(rows, training.BATCH):
        given = network.model.arrange(inputs)
        for at, form in forms.items():
            own = found.setdefault(at, _Sums(_time(given[at].shape, time)))
            own.see(given[at], _alike(given[at].ndim, form, own.time))
    return found


def _alike(ndim: int, form: Form, time: int) -> list[int]:
    """The dimensions along which all numbers are of one kind."""
    if form == "image":
        return [dim for dim in range(ndim) if ndim < 4 or dim != 1]
    return [0, time] if form == "series" else [0]


def _time(shape: torch.Size, asked: int | None) -> int:
    """The dimension that was asked for, or the longest but for the rows', the last of equal ones. Raises DataError."""
    if asked is None:
        return max(range(1, len(shape)), key=lambda dim: (shape[dim], dim))
    if not 0 < asked < len(shape):
        raise DataError(f"--time-axis {asked}: rows are {list(shape[1:])}, so it is from 1 to {len(shape) - 1}")
    return asked
