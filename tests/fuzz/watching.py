"""Sees what a reader does beyond reading: audit events of Python, and inotify for what C++ opens."""

from __future__ import annotations

import ctypes
import os
import struct
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType
from typing import Any

import graftkit

_RUNS = (
    "os.system os.exec os.fork os.forkpty os.posix_spawn os.spawn os.startfile subprocess.Popen pty.spawn"
    " socket.__new__ socket.connect socket.bind socket.getaddrinfo urllib.Request webbrowser.open ftplib.connect"
    " shutil.rmtree shutil.move shutil.copyfile shutil.copytree os.remove os.rename os.rmdir os.mkdir os.link"
    " os.symlink os.chmod os.chown os.truncate os.kill os.putenv os.chdir ctypes.dlopen code.__new__ sqlite3.connect"
    " tempfile.mkstemp tempfile.mkdtemp os.listxattr signal.pthread_kill builtins.input builtins.breakpoint"
)
_FORBIDDEN = frozenset(_RUNS.split())
_CODE_NAMES = "__import__ system popen eval exec __subclasses__ __builtins__ __globals__ Popen"
_NAMES = frozenset(_CODE_NAMES.split())
_IN_OPEN, _IN_MODIFY, _IN_CREATE, _IN_NONBLOCK = 0x20, 0x2, 0x100, 0x800
_OURS = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"  # graftkit sets it while torch.export reads


class Caught(BaseException):
    """Stops what a file has no right to; no reader catches it."""


class Watch:
    """One for a process: an audit hook cannot be taken away. `found` is what the last case did."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self._folder: str | None = None
        prefixes = {sys.prefix, sys.base_prefix, *sysconfig.get_paths().values()}
        prefixes |= {str(Path(file).parents[1]) for file in (graftkit.__file__, str(Path(__file__).parent))}
        real = {os.path.realpath(prefix) for prefix in prefixes} | prefixes
        self._readable = (*(f"{prefix}{os.sep}" for prefix in real), "/proc/", "/sys/", "<frozen")
        sys.addaudithook(self._hear)

    @contextmanager
    def over(self, folder: Path) -> Iterator[None]:
        """While inside, nothing may be opened but the folder's files and installed code, and nothing run."""
        self.found = []
        self._folder = str(folder) + os.sep
        try:
            yield
        finally:
            self._folder = None

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._folder is None:
            return
        fault = self._fault(event, arguments)
        if fault:
            self.found.append(fault)
            raise Caught(fault)

    def _fault(self, event: str, arguments: tuple[Any, ...]) -> str | None:
        if event == "open":
            return self._opened(*arguments[:3])
        if event == "exec":
            return self._executed(arguments[0])
        if event in _FORBIDDEN and not (event == "os.putenv" and os.fsdecode(arguments[0]) == _OURS):
            return f"{event} {str(arguments)[:120]}"
        return None

    def _opened(self, path: Any, mode: Any, flags: Any) -> str | None:
        if isinstance(path, int):
            return None
        writes = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) if isinstance(flags, int) else False
        named = str(Path(os.fsdecode(path)).absolute())
        real = os.path.realpath(named)
        if real == "/dev/null" or (not writes and real.startswith((str(self._folder), *self._readable))):
            return None
        return f"{'wrote' if writes else 'opened'} {named}"

    def _executed(self, code: CodeType) -> str | None:
        if not isinstance(code, CodeType) or code.co_filename.startswith(self._readable):
            return None
        names = _NAMES & set(_all_names(code))
        return f"ran code that names {', '.join(sorted(names))}" if names else None


def _all_names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _all_names(inner)


class Tripwire:
    """Tells whether anything in a folder was opened, by whatever language."""

    def __init__(self, folder: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._queue = libc.inotify_init1(_IN_NONBLOCK)
        watch = libc.inotify_add_watch(self._queue, os.fsencode(folder), _IN_OPEN | _IN_MODIFY | _IN_CREATE)
        if self._queue < 0 or watch < 0:
            raise OSError(ctypes.get_errno(), "inotify cannot watch", str(folder))

    def touched(self) -> bool:
        """Whether anything was since the last call. Opening the folder itself, as `ls` does, does not count."""
        try:
            events = os.read(self._queue, 65536)
        except BlockingIOError:
            return False
        return any(length for _, _, _, length in _unpacked(events))


def _unpacked(events: bytes) -> Iterator[tuple[int, int, int, int]]:
    at = 0
    while at < len(events):
        head = struct.unpack_from("iIII", events, at)
        yield head
        at += 16 + head[3]
