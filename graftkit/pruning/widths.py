"""What pruning knows of a module as plain values: widths that can shrink, and what cannot, with the reason."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Change:
    """A number that a module keeps beside its weights and that follows a width, such as how wide a head is.

    Attributes:
        module: its path.
        attribute: the number's name.
        by: what each unit that leaves adds to it; negative.
    """

    module: str
    attribute: str
    by: int


@dataclass(frozen=True, slots=True)
class Width:
    """Channels that leave together wherever they are made, passed on and read.

    Attributes:
        name: the path of the layer that the width is called by; its outputs.
        layers: the paths of all layers that make or read it.
        units: what may leave at a time: numbers of its outputs, one of each head or group where there are any.
        changes: numbers of other modules that follow.
    """

    name: str
    layers: tuple[str, ...]
    units: tuple[tuple[int, ...], ...]
    changes: tuple[Change, ...] = ()


@dataclass(frozen=True, slots=True)
class Kept:
    """A layer whose width stays, and why."""

    name: str
    reason: str
