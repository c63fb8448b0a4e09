"""The largest difference between a runtime's outputs and the trained model's, relative to their scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from graftkit.contracts import Run

TOLERANCE = 1e-4
TIES = 1e-3  # the share of whole-number outputs that may differ: where two logits tie, rounding decides which wins

Forward = Callable[[tuple[Tensor, ...]], Sequence[Tensor]]
Batch = tuple[Tensor, ...]


@dataclass
class Differences:
    """The differences of all outputs, gathered batch by batch.

    The scale of an output's column (dimension 1) is its largest |expected|, but at least a hundredth of the largest
    of all columns: one that hardly speaks is not measured by its rounding errors.

    Attributes:
        wrong: what a runtime does where the difference is infinite, empty where it is not.
        misshapen: whether that is for the number of outputs or a shape.
    """

    outputs: dict[int, _Floats | _Wholes] = field(default_factory=dict)
    wrong: str = ""
    misshapen: bool = False

    def add(self, given: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> None:
        """Take in one batch's outputs."""
        if len(given) != len(expected):
            self._misshape(f"gives {len(given)} outputs in place of {len(expected)}")
        for index, (ours, theirs) in enumerate(zip(given, expected, strict=False)):
            if ours.shape != theirs.shape:
                self._misshape(f"gives outputs of shape {list(ours.shape)} in place of {list(theirs.shape)}")
                return
            output = self.outputs.setdefault(index, _Wholes() if theirs.dtype.kind in "biu" else _Floats())
            output.add(ours, theirs)
            if math.isinf(output.worst()):
                own = np.isnan(theirs).any()
                self.wrong = self.wrong or (
                    "cannot be compared: the trained model's own outputs are no numbers"
                    if own else "gives outputs that are infinite or no numbers where the trained model's are not"
                )  # fmt: skip

    def _misshape(self, why: str) -> None:
        self.wrong, self.misshapen = self.wrong or why, True

    def worst(self) -> float:
        """The largest difference relative to its scale; infinite where shapes differ or a value is not a number."""
        return math.inf if self.wrong else max((output.worst() for output in self.outputs.values()), default=0.0)


@dataclass
class _Floats:
    """By how many columns there are: the largest difference and the largest value of each."""

    columns: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    broken: bool = False

    def add(self, ours: np.ndarray, theirs: np.ndarray) -> None:
        ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
        same = np.isinf(theirs) & (ours == theirs)  # what a model masks away on purpose
        self.broken |= not (np.isfinite(ours) | same).all() or not (np.isfinite(theirs) | same).all()
        if self.broken:
            return
        apart = _by_column(np.abs(np.where(same, 0, ours) - np.where(same, 0, theirs)))
        size = _by_column(np.abs(np.where(same, 0, theirs)))
        worst, scale = self.columns.get(len(size), (apart, size))
        self.columns[len(size)] = np.maximum(worst, apart), np.maximum(scale, size)

    def worst(self) -> float:
        if self.broken:
            return math.inf
        largest = max((float(scale.max(initial=0.0)) for _, scale in self.columns.values()), default=0.0)
        relative = (worst / np.maximum(scale, max(1e-2 * largest, 1e-12)) for worst, scale in self.columns.values())
        return max((float(each.max(initial=0.0)) for each in relative), default=0.0)


@dataclass
class _Wholes:
    """How many whole numbers differ, of how many."""

    differing: int = 0
    of: int = 0

    def add(self, ours: np.ndarray, theirs: np.ndarray) -> None:
        self.differing += int((ours != theirs).sum())
        self.of += theirs.size

    def worst(self) -> float:
        share = self.differing / max(self.of, 1)
        return share if share > TIES else 0.0


def compare(run: Run, forward: Forward, names: Sequence[str], batches: Iterable[Batch]) -> float:
    """The largest of `differences`."""
    return differences(run, forward, names, batches).worst()


def differences(run: Run, forward: Forward, names: Sequence[str], batches: Iterable[Batch]) -> Differences:
    """|runtime - model| / scale over all batches and outputs.

    Infinite where the number of outputs or a shape differs, or a value is not a number; infinities have to agree.
    Of outputs that are whole numbers or truth values, the share that differs, where that is more than `TIES`.

    Args:
        run: a runtime's function.
        forward: the trained model in evaluation mode, from the inputs in order to all outputs in order.
        names: what the file calls the inputs.
        batches: inputs in order, each tensor [rows, ...].
    """
    found = Differences()
    for batch in batches:
        with torch.no_grad():
            expected = forward(batch)
        given = run(feed(names, batch))
        found.add(given, [array(value) for value in expected])
    return found


def feed(names: Sequence[str], batch: Batch) -> dict[str, np.ndarray]:
    """A batch as a runtime takes it."""
    return {name: array(tensor) for name, tensor in zip(names, batch, strict=True)}


def array(tensor: Tensor) -> np.ndarray:
    """A tensor's numbers; a type that numpy does not have as float32."""
    plain = tensor.detach().cpu()
    numbers: np.ndarray = (plain.float() if plain.dtype == torch.bfloat16 else plain).numpy()
    return numbers


def _by_column(values: np.ndarray) -> np.ndarray:
    """The largest value of each column."""
    largest: np.ndarray = values.max(axis=tuple(d for d in range(values.ndim) if d != 1), initial=0.0)
    return largest.reshape(-1)
