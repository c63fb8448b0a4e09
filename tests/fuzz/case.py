"""What a case is, where it lies, what became of it, and what a format must bring."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Literal

OUTSIDE = "outside"  # the folder beside a case's own, in which no reader has any business
SECRET = "secret.bin"
MARKER = "canary"


@dataclass(frozen=True)
class Case:
    """One broken file, made again from these three."""

    format: str
    seed: int
    index: int

    @property
    def name(self) -> str:
        return f"{self.format}-{self.seed}-{self.index}"

    def random(self) -> Random:
        return Random(f"{self.format}/{self.seed}/{self.index}")


@dataclass(frozen=True)
class Place:
    """The folder of a case; `marker` is a file in it that hostile code would make."""

    folder: Path

    @property
    def marker(self) -> Path:
        return self.folder / MARKER

    @property
    def secret(self) -> Path:
        """A file beyond the folder, which is there."""
        return self.folder.parent / OUTSIDE / SECRET


Break = Callable[[bytes, Random, Place], bytes]  # a good file -> a broken one; may put more files into the folder


@dataclass(frozen=True)
class Format:
    """A kind of file and its reader.

    Attributes:
        name: in the table and in the names of cases.
        ending: of the file, with the dot.
        originals: good files, made once into a folder. The first cases give them to the reader as they are. Files with
            another ending lie beside each.
        breaks: the ways to break one.
        read: the reader; anything but a result or a GraftkitError is a fault.
    """

    name: str
    ending: str
    originals: Callable[[Path], None]
    breaks: Sequence[Break]
    read: Callable[[Path], object]


@dataclass(frozen=True)
class Verdict:
    """What the reader made of a case: `why` is the refusal, or what is at fault; `how` names the break."""

    case: Case
    outcome: Literal["loaded", "refused", "failed"]
    why: str
    how: str
    seconds: float  # of processor time, in the reader
