"""Readers that do what no reader may, to prove that each is found out."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from graftkit.core.errors import SourceError

from .broken import BYTES
from .case import OUTSIDE, SECRET, Format
from .originals import safetensors


def _runs(path: Path) -> None:
    os.system(f"touch {path.parent}/canary")


def _starts(path: Path) -> None:
    subprocess.run([sys.executable, "--version"], check=False)


def _connects(path: Path) -> None:
    socket.socket().close()


def _evaluates(path: Path) -> None:
    eval("().__class__.__base__.__subclasses__()")


def _looks_beyond(path: Path) -> None:
    (path.parents[1] / OUTSIDE / SECRET).read_bytes()


def _looks_beyond_in_native_code(path: Path) -> None:
    try:
        torch._C.PyTorchFileReader(str(path.parents[1] / OUTSIDE / SECRET))
    except RuntimeError:
        raise SourceError(f"{path} is damaged") from None


def _writes(path: Path) -> None:
    (path.parent / "left").write_text("here")


def _leaves_a_file(path: Path) -> None:
    torch._C.PyTorchFileWriter(str(path.parent / "left.pt")).write_end_of_file()


def _takes_memory(path: Path) -> None:
    torch.ones(280 * 2**20)  # a little over a GiB: on a busy machine each page takes its time


def _raises(path: Path) -> None:
    raise ValueError("a traceback")


def _says_two_lines(path: Path) -> None:
    raise SourceError(f"{path} is damaged\nsomehow")


def _does_not_name_it(path: Path) -> None:
    raise SourceError("it is damaged")


def _refuses_everything(path: Path) -> None:
    raise SourceError(f"{path} is refused")


def _crashes(path: Path) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _dies(path: Path) -> None:
    os._exit(3)


def _never_ends(path: Path) -> None:
    while True:
        pass


# What each does, and what the verdict has to say about it. Ending its own process is no audit event.
_FAULTS: Mapping[Callable[[Path], None], str] = {
    _runs: "os.system",
    _starts: "subprocess.Popen",
    _connects: "socket.__new__",
    _evaluates: "ran code that names __subclasses__",
    _looks_beyond: "opened ",
    _looks_beyond_in_native_code: "opened a file beyond",
    _writes: "wrote ",
    _leaves_a_file: "changed the folder",
    _takes_memory: "MiB of memory",
    _raises: "ValueError: a traceback",
    _says_two_lines: "not one line",
    _does_not_name_it: "does not name the file",
    _refuses_everything: "refused a good file",
    _crashes: "os.kill",
    _dies: "the process died of 3",
    _never_ends: "of processor time",
}

FAULTY: Mapping[str, tuple[Format, str]] = {
    reader.__name__: (Format(reader.__name__, ".safetensors", safetensors, BYTES, reader), words)
    for reader, words in _FAULTS.items()
}
