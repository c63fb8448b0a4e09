"""What a fit has done so far, kept so that it can go on from there: arms that ended, and the one that is on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftkit import ranks
from graftkit.core.errors import RunError
from graftkit.training import Checkpoints

_SHARE = 0.05  # of the time may go to writing


class Journal:
    """Remembers nothing: for a fit that nobody will resume."""

    def ended(self, key: str) -> Any:
        """What `end` was given; None where it was not."""
        return None

    def now(self, key: str) -> Any:
        """What `keep` was last given; None where there is nothing."""
        return None

    def end(self, key: str, state: dict[str, Any]) -> None:
        """A part of the fit is over, with this state in the end."""

    def keep(self, key: str, state: Callable[[], dict[str, Any]]) -> None:
        """A part of the fit is on, and could go on from this state."""


@dataclass
class FolderJournal(Journal):
    """Remembers in a folder of checkpoints.

    A state that is only on the way is written as often as takes a twentieth of the time, and where it cannot be, the
    fit goes on without. Of several processes the first one reads and writes.

    Attributes:
        folder: where the checkpoints lie.
        warn: told of what is broken or cannot be written.
        always: write every state.
    """

    folder: Path
    warn: Callable[[str], None]
    always: bool = False

    def __post_init__(self) -> None:
        self._ready = 0.0  # when the next state may be written
        self._failed = False

    def ended(self, key: str) -> Any:
        return ranks.told(lambda: Checkpoints(self.folder, f"{_file_name(key)}-ended", keep=1).read(self.warn))

    def now(self, key: str) -> Any:
        return ranks.told(lambda: self._now(key).read(self.warn))

    def end(self, key: str, state: dict[str, Any]) -> None:
        if ranks.number():
            return
        self._try(lambda: Checkpoints(self.folder, f"{_file_name(key)}-ended", keep=1).write(state))
        if not self._failed:
            self._now(key).clear()

    def keep(self, key: str, state: Callable[[], dict[str, Any]]) -> None:
        begun = time.monotonic()
        if ranks.told(lambda: not self.always and begun < self._ready):
            return
        kept = state()
        if ranks.number():
            return
        self._try(lambda: self._now(key).write(kept))
        done = time.monotonic()
        self._ready = done + (done - begun) / _SHARE

    def _now(self, key: str) -> Checkpoints:
        return Checkpoints(self.folder, f"{_file_name(key)}-now")

    def _try(self, write: Callable[[], None]) -> None:
        try:
            write()
            self._failed = False
        except RunError as error:
            if not self._failed:
                self.warn(f"{error}; the run goes on, but could be resumed only from an earlier state")
            self._failed = True


class Prefixed(Journal):
    """A journal in which keys begin with a word of their own."""

    def __init__(self, journal: Journal, prefix: str):
        self._journal, self._prefix = journal, prefix

    def ended(self, key: str) -> Any:
        return self._journal.ended(f"{self._prefix} {key}")

    def now(self, key: str) -> Any:
        return self._journal.now(f"{self._prefix} {key}")

    def end(self, key: str, state: dict[str, Any]) -> None:
        self._journal.end(f"{self._prefix} {key}", state)

    def keep(self, key: str, state: Callable[[], dict[str, Any]]) -> None:
        self._journal.keep(f"{self._prefix} {key}", state)


def _file_name(key: str) -> str:
    return "-".join(key.replace(",", "").split())
