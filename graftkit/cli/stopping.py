"""What happens on SIGTERM: the run stops where it is, with its last checkpoint on disk, and says how to go on."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_CODE = 143  # 128 + SIGTERM, as a shell has it


class Terminated(BaseException):
    """A scheduler wants the machine back."""


@contextmanager
def stopping(how_to_go_on: str) -> Iterator[None]:
    """While inside, SIGTERM raises `Terminated` with these words instead of ending the process on the spot."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Terminated(how_to_go_on)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
