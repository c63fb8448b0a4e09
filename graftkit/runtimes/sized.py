"""A session of a file with free sizes for a runtime that has to know them: it is opened for each it is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np

from graftkit.contracts import Session
from graftkit.core.errors import ExportError, MismatchError
from graftkit.runtimes.described import Described
from graftkit.runtimes.ports import shapes

_KEPT = 4  # sessions: each is a process that holds the weights
_UNKNOWN = "ndetermined"  # what the runtime says where it has to know a size

Answer = TypeVar("Answer")


class Sized:
    """Sessions by their sizes, the latest ones kept.

    Args:
        open_at: opens a file whose sizes are fixed.
        free: a size that stays free.
    """

    def __init__(self, file: Described, open_at: Callable[[Described], Session], free: str | None = None):
        self.file, self.open_at, self.free = file, open_at, free
        self.known: dict[tuple[tuple[str, int], ...], Session] = {}
        self.failed: dict[tuple[tuple[str, int], ...], ExportError] = {}

    @classmethod
    def after(cls, error: ExportError, file: Described, open_at: Callable[[Described], Session]) -> Sized:
        """For a file that is not opened with free sizes.

        Raises the error where the number of rows is the only free size and one row is not opened, either; with others,
        what the runtime makes of them shows when it is run.
        """
        found = cls(file, open_at)
        match file.free():
            case [str(rows)]:
                try:
                    found._session({rows: 1})
                except ExportError:
                    raise error from None
            case sizes if None in sizes or _UNKNOWN not in str(error):
                raise error
        return found

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        return self._of(inputs)(inputs)

    def seconds(self, inputs: Mapping[str, np.ndarray], times: int) -> list[float]:
        return self._of(inputs).seconds(inputs, times)

    def close(self) -> None:
        for session in self.known.values():
            session.close()

    def _of(self, inputs: Mapping[str, np.ndarray]) -> Session:
        self.file.check(inputs)
        try:
            sizes = self.file.sizes(inputs).items()
            return self._session({name: size for name, size in sizes if name != self.free})
        except ExportError as error:
            raise MismatchError(f"{self.file.runtime} fails on {shapes(inputs)}: {error}") from error

    def _session(self, sizes: Mapping[str, int]) -> Session:
        key = tuple(sorted(sizes.items()))
        if key in self.failed:
            raise self.failed[key]
        if key not in self.known:
            while len(self.known) >= _KEPT:
                self.known.pop(next(iter(self.known))).close()
            try:
                self.known[key] = self.open_at(self.file.at(sizes))
            except ExportError as error:
                self.failed[key] = error
                raise
        return self.known[key]


class UntilSized:
    """A session with free sizes, till it turns out in a run that the runtime has to know them; sessions by size, then.

    Args:
        session: of the file as it is.
        open_at: opens a file whose sizes are fixed.
    """

    def __init__(self, session: Session, file: Described, open_at: Callable[[Described], Session]):
        self.session, self.file, self.open_at = session, file, open_at

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        return self._asked(lambda session: session(inputs))

    def seconds(self, inputs: Mapping[str, np.ndarray], times: int) -> list[float]:
        return self._asked(lambda session: session.seconds(inputs, times))

    def close(self) -> None:
        self.session.close()

    def _asked(self, ask: Callable[[Session], Answer]) -> Answer:
        try:
            return ask(self.session)
        except MismatchError as error:
            if isinstance(self.session, Sized) or _UNKNOWN not in str(error):
                raise
            try:
                sized = Sized.after(ExportError(str(error)), self.file, self.open_at)
            except ExportError:
                raise error from None
        self.session.close()
        self.session = sized
        return ask(sized)
