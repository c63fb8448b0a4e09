"""What a corruption must be, and what it knows of the rows that it corrupts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

from torch import Generator, Tensor

Form = Literal["image", "series", "values"]


@dataclass(frozen=True, eq=False)
class Scale:
    """What one input's numbers are like over all rows; tensors broadcast to [rows, ...].

    Attributes:
        low, high, mean: of each channel of images, of each feature otherwise.
        spread: the standard deviation of each.
        time: the dimension along which a series goes on.
    """

    low: Tensor
    high: Tensor
    mean: Tensor
    spread: Tensor
    time: int = -1


class Corruption(Protocol):
    """A way in which inputs get worse. A kind is a frozen dataclass without fields."""

    name: ClassVar[str]
    summary: ClassVar[str]
    unit: ClassVar[str]  # of its levels
    forms: ClassVar[tuple[Form, ...]]  # what it goes with
    levels: ClassVar[tuple[float, ...]]  # five, each worse than the one before

    def apply(self, rows: Tensor, level: float, scale: Scale, generator: Generator) -> Tensor:
        """The rows, [rows, ...], corrupted each by itself: same shape, type and device; `rows` stay as they are.

        Images have height and width last; a series goes on along `scale.time`. Random numbers come from `generator`,
        which is the CPU's.
        """
