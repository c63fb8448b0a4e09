"""A run's networks on corrupted inputs: each corruption at five strengths, the same rows for all networks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from graftkit import training
from graftkit.contracts import Inputs, Metric, Observer, Rows
from graftkit.core.errors import DataError
from graftkit.core.evaluations import CorruptedRecord, Gain, StrengthRecord
from graftkit.core.signature import Port
from graftkit.corruptions import CORRUPTIONS, Corruption, Form, Scale
from graftkit.evaluating.networks import Network
from graftkit.fitting import jackknife_error, left_out

_FORMS: Mapping[int, Form] = {2: "values", 3: "series", 4: "image"}  # by the number of dimensions, rows included
_GROUPS = 50  # of rows, each left out once
CLEAN, ALL = "clean", "all"


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
    """What of the inputs may be corrupted, and what their numbers are like. Raises DataError where nothing may."""
    ports = network.model.traced.signature.inputs
    first = network.model.arrange(next(iter(training.batches(rows, 2)))[0])
    forms: dict[int, Form] = {}
    for at, (port, tensor) in enumerate(zip(ports, first, strict=True)):
        found = form or _FORMS.get(tensor.ndim)
        if tensor.is_floating_point() and found is not None and _fits(found, tensor, port, asked=form is not None):
            forms[at] = found
    if not forms:
        told = "; ".join(port.text() for port in ports)
        raise DataError(
            f"no input is an image, a series or a row of numbers ({told}), so there is nothing to corrupt; name the"
            " --form if one is, or leave it out with --only few"
        )
    return Ends(forms, _scales(network, rows, forms, time))


def _fits(form: Form, tensor: Tensor, port: Port, *, asked: bool) -> bool:
    """Whether an input may be of this form. Raises DataError where that was asked for and cannot be."""
    fits = tensor.ndim >= (3 if form == "image" else 2)
    if asked and not fits:
        raise DataError(f"{port.text()} has too few dimensions for an {form}; name another --form")
    return fits


def _scales(network: Network, rows: Rows, forms: Mapping[int, Form], time: int | None) -> dict[int, Scale]:
    """What each input's numbers are like over all rows, in one pass."""
    sums = {at: _Sums() for at in forms}
    shapes: dict[int, torch.Size] = {}
    for inputs, _ in training.batches(rows, training.BATCH):
        given = network.model.arrange(inputs)
        for at, form in forms.items():
            sums[at].see(given[at], channels=form == "image" and given[at].ndim > 3)
            shapes[at] = given[at].shape
    return {at: sums[at].scale(_time(shapes[at], time)) for at in forms}


def _time(shape: torch.Size, asked: int | None) -> int:
    """The dimension that was asked for, or the longest but for the rows', the last of equal ones. Raises DataError."""
    if asked is None:
        return max(range(1, len(shape)), key=lambda dim: (shape[dim], dim))
    if not 0 < asked < len(shape):
        raise DataError(f"--time-axis {asked}: rows are {list(shape[1:])}, so it is from 1 to {len(shape) - 1}")
    return asked


class _Sums:
    """Sums over batches, by channel or over all."""

    def __init__(self) -> None:
        self.count = 0
        self.sum = self.squares = 0.0
        self.low: Tensor | None = None
        self.high = self.means = torch.zeros(())

    def see(self, batch: Tensor, *, channels: bool) -> None:
        kept = 1 if channels else -1
        dims = [dim for dim in range(batch.ndim) if dim != kept]
        low, high, total = batch.amin(dims, True), batch.amax(dims, True), batch.double().sum(dims, True)
        self.low = low if self.low is None else torch.minimum(self.low, low)
        self.high = high if not self.count else torch.maximum(self.high, high)
        self.means = self.means + total
        self.count += batch.numel()
        self.sum += float(batch.double().sum())
        self.squares += float(batch.double().square().sum())

    def scale(self, time: int) -> Scale:
        assert self.low is not None
        each = self.count / self.low.numel()
        mean = self.sum / self.count
        spread = math.sqrt(max(0.0, self.squares / self.count - mean**2))
        return Scale(self.low, self.high, (self.means / each).to(self.low.dtype), spread, time)


@dataclass(frozen=True, eq=False)
class _Answer:
    """A network's metric on some rows, and without each group of them."""

    score: float
    without: Tensor
    targets: Tensor


def corrupted(
    networks: Sequence[Network],
    rows: Rows,
    part: str,
    metric: Metric,
    ends: Ends,
    observer: Observer,
    *,
    seed: int,
) -> CorruptedRecord:
    """All networks on rows as they are and corrupted; each sees the same.

    Raises DataError where rows come in another order each time, so that networks could not be compared.
    """
    found: dict[str, dict[tuple[str, int], _Answer]] = {}
    for network in networks:
        observer.on_stage(f"corrupting the inputs of {network.name}")
        found[network.name] = dict(_answers(network, rows, metric, ends, seed))
    first, *others = found.values()
    if any(not torch.equal(other[CLEAN, 0].targets, first[CLEAN, 0].targets) for other in others):
        raise DataError(f"the {part} rows come in another order each time; give a loader that does not shuffle them")
    strengths = tuple(
        StrengthRecord(name, strength, CORRUPTIONS[name].levels[strength - 1], scores)
        for name, strength in first
        if name != CLEAN and (scores := {own: answers[name, strength].score for own, answers in found.items()})
    )
    clean = {name: answers[CLEAN, 0].score for name, answers in found.items()}
    last = found[networks[-1].name]
    gains = {name: _gains(last, answers) for name, answers in found.items() if answers is not last}
    return CorruptedRecord(part, len(first[CLEAN, 0].targets), clean, strengths, gains)


def _answers(
    network: Network, rows: Rows, metric: Metric, ends: Ends, seed: int
) -> Iterator[tuple[tuple[str, int], _Answer]]:
    """The network on rows as they are, and in each corruption at each strength."""
    model = network.awake()
    device = next(model.parameters()).device

    def answer(change: Callable[[Sequence[Tensor]], Sequence[Tensor]]) -> _Answer:
        def forward(inputs: Inputs) -> Tensor:
            output: Tensor = model(*(tensor.to(device) for tensor in change(model.arrange(inputs))))
            return output

        outputs, targets = training.predict(forward, rows)
        score = metric(outputs, targets) if torch.isfinite(outputs).all() else math.nan
        return _Answer(score, left_out(metric, (outputs, targets), min(_GROUPS, len(targets))), targets)

    yield (CLEAN, 0), answer(lambda inputs: inputs)
    for number, kind in enumerate(ends.corruptions()):
        for strength, level in enumerate(kind.levels, 1):
            generator = torch.Generator().manual_seed((seed * 100 + number) * 10 + strength)
            own = partial(ends.corrupted, kind=kind, level=level, generator=generator)
            yield (kind.name, strength), answer(own)


def _gains(ours: Mapping[tuple[str, int], _Answer], theirs: Mapping[tuple[str, int], _Answer]) -> dict[str, Gain]:
    """What ours are above theirs: as they are, by corruption, over all."""
    names = dict.fromkeys(name for name, _ in ours)
    found = {name: _gain(ours, theirs, [key for key in ours if key[0] == name]) for name in names}
    return {**found, ALL: _gain(ours, theirs, [key for key in ours if key[0] != CLEAN])}


def _gain(
    ours: Mapping[tuple[str, int], _Answer], theirs: Mapping[tuple[str, int], _Answer], keys: list[tuple[str, int]]
) -> Gain:
    """The mean over some of the answers, with the jackknife's error over groups of rows."""
    value = sum(ours[key].score - theirs[key].score for key in keys) / len(keys)
    without = torch.stack([ours[key].without - theirs[key].without for key in keys]).mean(0)
    error = jackknife_error(without)
    return Gain(value, error if len(without) > 1 and math.isfinite(error) else None, len(without))
