"""A table of kinds: the one place where a family's members are looked up by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

from graftkit.core.errors import GraftkitError, did_you_mean

Member = TypeVar("Member")


class Table(Mapping[str, Member], Generic[Member]):
    """An immutable, ordered mapping from name to member whose misses say what is known.

    Args:
        family: what a member is called in messages, in the singular ("dendrite kind").
        members: name to member, in the order in which a user sees them.
        error: the error raised by `find` for an unknown name.
    """

    def __init__(self, family: str, members: Mapping[str, Member], error: type[GraftkitError]):
        self._family = family
        self._members = dict(members)
        self._error = error

    def find(self, name: str) -> Member:
        """The member called `name`; raises the table's error, with the closest names, if there is none."""
        if name in self._members:
            return self._members[name]
        known = ", ".join(self._members)
        raise self._error(f"unknown {self._family} {name!r}; there are {known}.{did_you_mean(name, self._members)}")

    def __getitem__(self, name: str) -> Member:
        return self._members[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)
