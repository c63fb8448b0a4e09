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
from graftkit.core.evaluations import ALL, CLEAN, CorruptedRecord, Gain, StrengthRecord
from graftkit.corruptions import CORRUPTIONS
from graftkit.evaluating.ends import Ends
from graftkit.evaluating.networks import Network
from graftkit.fitting import jackknife_error, left_out

_GROUPS = 50  # of rows, each left out once
Key = tuple[str, int]  # a corruption and its strength


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
    found: dict[str, dict[Key, _Answer]] = {}
    for network in networks:
        observer.on_stage(f"corrupting the inputs of {network.name}")
        found[network.name] = dict(_answers(network, rows, metric, ends, seed))
        lost = sorted({name for (name, _), answer in found[network.name].items() if not math.isfinite(answer.score)})
        if lost:
            observer.on_warning(f"{network.name} gives outputs that are no numbers, so no score: {', '.join(lost)}")
    first, *others = found.values()
    same = [first[CLEAN, 0].targets.nan_to_num(), *(other[CLEAN, 0].targets.nan_to_num() for other in others)]
    if any(not torch.equal(targets, same[0]) for targets in same):
        raise DataError(f"the {part} rows come in another order each time; give a loader that does not shuffle them")
    strengths = tuple(
        StrengthRecord(name, strength, CORRUPTIONS[name].levels[strength - 1],
                       {own: answers[name, strength].score for own, answers in found.items()})
        for name, strength in first if name != CLEAN
    )  # fmt: skip
    clean = {name: answers[CLEAN, 0].score for name, answers in found.items()}
    last = found[networks[-1].name]
    bounded = metric is training.accuracy
    gains = {name: _gains(last, answers, bounded) for name, answers in found.items() if answers is not last}
    return CorruptedRecord(part, len(first[CLEAN, 0].targets), clean, strengths, gains)


def _answers(network: Network, rows: Rows, metric: Metric, ends: Ends, seed: int) -> Iterator[tuple[Key, _Answer]]:
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


def _gains(ours: Mapping[Key, _Answer], theirs: Mapping[Key, _Answer], bounded: bool) -> dict[str, Gain]:
    """What ours are above theirs: as they are, by corruption, and over all where no kind outweighs the others."""
    names = dict.fromkeys(name for name, _ in ours)
    found = {name: _gain(ours, theirs, [key for key in ours if key[0] == name]) for name in names}
    return {**found, ALL: _gain(ours, theirs, [key for key in ours if key[0] != CLEAN])} if bounded else found


def _gain(ours: Mapping[Key, _Answer], theirs: Mapping[Key, _Answer], keys: list[Key]) -> Gain:
    """The mean over some of the answers, with the jackknife's error over groups of rows."""
    value = sum(ours[key].score - theirs[key].score for key in keys) / len(keys)
    without = torch.stack([ours[key].without - theirs[key].without for key in keys]).mean(0)
    error = jackknife_error(without)
    return Gain(value, error if len(without) > 1 and math.isfinite(error) else None, len(without))
