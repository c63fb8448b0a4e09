"""A process that runs a runtime, and answers frames; it ends with its last reference, or where it hangs."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import threading
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from graftkit.runtimes.channel import Frame, Lost, reply, why_of
from graftkit.runtimes.workers import frames
from graftkit.runtimes.workers.frames import SAID

PATIENCE = 600.0  # seconds for one answer: converting a large file takes minutes


class Worker:
    """A running worker, in a folder of its own that goes when it ends.

    Args:
        command: what to start.
        patience: seconds for one answer; then it is ended.
    """

    def __init__(self, command: Sequence[str], *, patience: float = PATIENCE):
        self.patience = patience
        folder = tempfile.TemporaryDirectory(prefix="graftkit-")
        self.said = Path(folder.name, SAID)
        with self.said.open("wb") as said:
            self.process = subprocess.Popen(
                list(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, cwd=folder.name,
                start_new_session=True,
            )  # fmt: skip
        self._end = weakref.finalize(self, end, self.process, folder)

    def ask(self, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Frame:
        """Its answer. Raises Lost where it ended, or hangs, and Refused with what it says went wrong."""
        if not self._end.alive:
            raise Lost("the session is closed")
        assert self.process.stdin is not None and self.process.stdout is not None
        hangs = threading.Event()
        watch = threading.Timer(self.patience, _give_up, (self.process, hangs))
        watch.daemon = True
        watch.start()
        try:
            frames.write(self.process.stdin, header, arrays)  # type: ignore[arg-type]
            answer = frames.read(self.process.stdout)  # type: ignore[arg-type]
        except ValueError:
            kill(self.process)
            raise Lost("it does not answer as a worker does") from None
        except (OSError, EOFError):
            answer = None
        finally:
            watch.cancel()
        if answer is None:
            raise Lost(f"no answer in {self.patience:g} s" if hangs.is_set() else self._ended())
        return reply(answer)

    def close(self) -> None:
        """End it; twice does no harm."""
        self._end()

    def _ended(self) -> str:
        """How it ended, once it broke off."""
        with suppress(subprocess.TimeoutExpired):  # its streams end a moment before it does
            self.process.wait(5)
        kill(self.process)
        code = self.process.wait()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        said = self.said.read_text(errors="replace")
        lines = (line.strip() for line in reversed(said.split("\n")))
        telling = (line for line in lines if line and not re.search(r"\bsuccess", line, re.IGNORECASE))
        last = why_of(said) or next(telling, "")
        return f"its process ended ({how}){': ' if last else ''}{last}"


def _give_up(process: subprocess.Popen[bytes], hangs: threading.Event) -> None:
    hangs.set()
    kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a process and what it started, at once."""
    if process.poll() is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def end(process: subprocess.Popen[bytes], folder: tempfile.TemporaryDirectory[str]) -> None:
    """End a process, wait for it, and take its folder away."""
    kill(process)
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with suppress(OSError):
                stream.close()
    folder.cleanup()
