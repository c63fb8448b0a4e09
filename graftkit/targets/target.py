"""What a target's importer is known to take, as data, and what is found against a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Limit:
    """What an importer takes of one operator; what is left empty is not limited, as far as is known.

    Attributes:
        ranks: how many dimensions the first input may have.
        types: the element types of the first input, as ONNX calls them.
        constant: the inputs, by place, that must not depend on the file's inputs.
        zero: the inputs, by place, that must be constants of zeros where they are given.
        values: attributes, and what they may be where they are given.
        outputs: how many outputs may be used.
        batch_one: the file's batch must be 1, or free.
        instead: what to do about it.
    """

    ranks: tuple[int, ...] = ()
    types: tuple[str, ...] = ()
    constant: tuple[int, ...] = ()
    zero: tuple[int, ...] = ()
    values: Mapping[str, tuple[object, ...]] = field(default_factory=dict)
    outputs: int | None = None
    batch_one: bool = False
    instead: str = ""


@dataclass(frozen=True)
class Target:
    """An inference engine with an importer of its own.

    Attributes:
        name: as it is asked for.
        title: the engine, and the version that the lists are of.
        refuses: why it reads no ONNX file at all; empty where it reads some.
        instead: what to do about that, or about an operator that is not on the list.
        opsets: the oldest and the newest that the list is made for; None where it says nothing.
        operators: those of the standard domain that it takes.
        types: the element types that it takes, as ONNX calls them; empty where the list says nothing.
        limits: by operator.
        notes: what to know when a file is converted, one line each.
    """

    name: str
    title: str
    refuses: str = ""
    instead: str = ""
    opsets: tuple[int, int] | None = None
    operators: frozenset[str] = frozenset()
    types: tuple[str, ...] = ()
    limits: Mapping[str, Limit] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding:
    """Something that a target would not load.

    Attributes:
        node: its name; empty where it is the whole file.
        operator: its operator; empty where it is the whole file.
        why: what the target does not take.
        instead: what to do.
    """

    node: str
    operator: str
    why: str
    instead: str
