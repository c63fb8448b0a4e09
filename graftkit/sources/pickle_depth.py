"""How deep a pickle nests things within things, told without unpickling any of it."""

from __future__ import annotations

import pickletools
from functools import cache
from graphlib import CycleError, TopologicalSorter
from typing import Any

_GETS = frozenset({"GET", "BINGET", "LONG_BINGET"})
_PUTS = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})
_FILLING = {"APPEND": 1, "SETITEM": 2, "BUILD": 1, "APPENDS": None, "SETITEMS": None, "ADDITEMS": None}


def deepest(pickled: bytes, most: int) -> int:
    """The longest way from a thing to one within it; `most` opcodes are read.

    Raises ValueError where the bytes are no pickle, are more than that, or hold a thing within itself.
    """
    machine = _Machine()
    for count, (opcode, argument, _) in enumerate(pickletools.genops(pickled)):
        if count >= most:
            raise ValueError(f"more than {most} opcodes")
        machine.run(opcode, argument)
    depths: dict[int, int] = {}
    try:
        for thing in TopologicalSorter(machine.within).static_order():
            depths[thing] = 1 + max((depths[inner] for inner in machine.within.get(thing, ())), default=0)
    except CycleError as error:
        raise ValueError("a thing within itself") from error
    return max(depths.values(), default=0)


class _Machine:
    """The unpickler's stack and memo, holding numbers for things; `within` says what each holds."""

    def __init__(self) -> None:
        self.stack: list[int] = []
        self.marks: list[int] = []  # how much was on the stack at each mark
        self.memo: dict[int, int] = {}
        self.within: dict[int, list[int]] = {}

    def run(self, opcode: Any, argument: Any) -> None:
        """One opcode. Raises IndexError or KeyError where the stack or the memo does not have what it needs."""
        name = opcode.name
        if name in _PUTS or name == "MEMOIZE":
            self.memo[len(self.memo) if name == "MEMOIZE" else int(argument)] = self.stack[-1]
        elif name in _GETS:
            self.stack.append(self.memo[int(argument)])
        elif name == "MARK":
            self.marks.append(len(self.stack))
        elif name == "DUP":
            self.stack.append(self.stack[-1])
        elif name in _FILLING:
            taken = self._take(_FILLING[name])
            self.within.setdefault(self.stack[-1], []).extend(taken)
        elif name not in ("PROTO", "FRAME"):
            self._make(opcode)

    def _make(self, opcode: Any) -> None:
        to_mark, single = _reads(opcode.name)
        taken = (self._take(None) if to_mark else []) + self._take(single)
        for _ in opcode.stack_after:
            thing = len(self.within)
            self.within[thing] = taken
            self.stack.append(thing)

    def _take(self, count: int | None) -> list[int]:
        """The topmost things, or all above the mark, which goes as well."""
        at = self.marks.pop() if count is None else len(self.stack) - count
        if at < (self.marks[-1] if self.marks else 0):
            raise IndexError("the stack does not hold as much")
        taken, self.stack[at:] = self.stack[at:], []
        return taken


@cache
def _reads(name: str) -> tuple[bool, int]:
    """Whether an opcode reads down to the mark, and how many single things it reads."""
    before = next(each for each in pickletools.opcodes if each.name == name).stack_before
    slices = (pickletools.stackslice, pickletools.markobject)
    return any(each in slices for each in before), sum(each not in slices for each in before)
