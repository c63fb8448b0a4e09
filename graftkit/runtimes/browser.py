"""The `browser` runtime: onnxruntime-web in a page of a real browser without a window."""

from __future__ import annotations

import io
import queue
import shutil
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from graftkit.core.errors import RuntimeMissingError
from graftkit.runtimes.channel import Elsewhere, Frame, Lost, opened, reply
from graftkit.runtimes.described import described
from graftkit.runtimes.node import web_package, web_version
from graftkit.runtimes.page import WORKERS, Page
from graftkit.runtimes.worker import PATIENCE, end
from graftkit.runtimes.workers import frames

_LEASH = WORKERS / "leash.py"
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# Without a window and a profile of anybody's, and it talks to nobody but its page's server.
_FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
          "--disable-component-update", "--disable-sync", "--no-first-run", "--disable-quic", "--disable-extensions",
          "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")  # fmt: skip


@dataclass(frozen=True)
class Browser:
    """onnxruntime-web in Chromium; one thread where none are asked for. Its clock has a grain of some microseconds."""

    name: ClassVar[str] = "browser"

    def version(self) -> str:
        chromium()
        return web_version(web_package(self.name))

    def open(self, model: bytes | Path, *, threads: int | None = None) -> Elsewhere:
        program, package = chromium(), web_package(self.name)
        file = described(model, self.name)
        return opened(Tab(program, package), file, threads)


def chromium() -> str:
    """The browser. Raises RuntimeMissingError."""
    found = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if found is None:
        raise RuntimeMissingError("browser finds no Chromium: install chromium so that it is on the PATH")
    return found


def flags(profile: Path) -> list[str]:
    """How a browser is started."""
    return [*_FLAGS, f"--user-data-dir={profile}"]


class Tab:
    """A browser with one page; it goes with the last reference to it."""

    def __init__(self, program: str, package: Path, *, patience: float = PATIENCE):
        self.patience = patience
        self.page = Page(package)
        folder = tempfile.TemporaryDirectory(prefix="graftkit-", ignore_cleanup_errors=True)
        self.process = subprocess.Popen(
            [sys.executable, str(_LEASH), program, *flags(Path(folder.name, "profile")), self.page.address],
            cwd=folder.name, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        self._end = weakref.finalize(self, _end, self.page, self.process, folder)

    def ask(self, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Frame:
        """The page's answer. Raises Lost where the browser ended, or hangs, and Refused with what went wrong."""
        if not self._end.alive:
            raise Lost("the session is closed")
        self.page.questions.put(b"".join(frames.encoded(header, arrays)))
        try:
            frame = frames.read(io.BytesIO(self._answer()))
        except (ValueError, EOFError):
            frame = None
        if frame is None:
            raise Lost("the page does not answer as ours does")
        return reply(frame)

    def close(self) -> None:
        self._end()

    def _answer(self) -> bytes:
        end_of_patience = time.monotonic() + self.patience
        while time.monotonic() < end_of_patience:
            try:
                return self.page.answers.get(timeout=0.5)
            except queue.Empty:
                if self.process.poll() is not None:
                    raise Lost(f"the browser ended (exit code {self.process.returncode})") from None
        self.close()
        raise Lost(f"no answer in {self.patience:g} s")


def _end(page: Page, process: subprocess.Popen[bytes], folder: tempfile.TemporaryDirectory[str]) -> None:
    page.close()
    end(process, folder)
