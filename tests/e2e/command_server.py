"""Runs command lines in forks of one process that has imported what they import: most of a short one's time.

A fork runs the installed script and ends as any Python program does. What it shares with all others is how an
interpreter starts: the seed of string hashes, where objects lie, and modules that are there already. Where that
matters, `run_cli` takes a process of its own.
"""

from __future__ import annotations

import json
import os
import random
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

PRELOADED = (
    "graftkit.api", "graftkit.augmenting", "graftkit.compressing", "matplotlib.figure", "optuna", "rich.progress",
    "sklearn.datasets", "torch._dynamo", "torch.export._trace", "torch.onnx", "torch_pruning",
)  # fmt: skip


class CommandServer:
    """The process that is forked, from its start to `close`; any thread may `run`."""

    def __init__(self, environment: Mapping[str, str]):
        self._folder = tempfile.TemporaryDirectory()
        self._address = str(Path(self._folder.name, "socket"))
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self._address)
        listener.listen()
        words = [sys.executable, "-P", __file__, str(listener.fileno())]
        with listener:  # the process begins to answer when it has imported all
            self._process = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                env=dict(environment),
                pass_fds=[listener.fileno()],
                start_new_session=True,
            )

    def run(
        self, script: Path, words: Sequence[str], cwd: Path, environment: Mapping[str, str], timeout: float
    ) -> tuple[int, str, str]:
        """Exit code (negative: the signal), stdout and stderr. Raises subprocess.TimeoutExpired."""
        with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as connection:
            out, err = Path(folder, "out"), Path(folder, "err")
            connection.settimeout(timeout)
            connection.connect(self._address)
            told = {"script": str(script), "words": list(words), "cwd": str(cwd), "environment": dict(environment)}
            connection.sendall(json.dumps({**told, "out": str(out), "err": str(err)}).encode() + b"\n")
            answers = connection.makefile()
            pid = int(answers.readline())
            status = ""
            try:
                status = answers.readline()
            except TimeoutError:
                raise subprocess.TimeoutExpired([str(script), *words], timeout) from None
            finally:
                if not status:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            return os.waitstatus_to_exitcode(int(status)), out.read_text(), err.read_text()

    def close(self) -> None:
        """End the process, and forget its address."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._folder.cleanup()


def serve(listener: socket.socket) -> dict[str, Any] | None:
    """Fork for every request; what it asks for in the fork that answers it, None in this process once stdin ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # who waits for whom says `_answer`
    with selectors.DefaultSelector() as ready:
        ready.register(listener, selectors.EVENT_READ)
        ready.register(sys.stdin, selectors.EVENT_READ)
        while True:
            if any(key.fileobj is sys.stdin for key, _ in ready.select()):
                return None
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                return _answer(connection)
            connection.close()


def _answer(connection: socket.socket) -> dict[str, Any]:
    """The request, in a second fork; the first tells of its number and its end, and ends itself."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with connection.makefile() as lines:
        request = json.loads(lines.readline())
    pid = os.fork()
    if pid == 0:
        connection.close()
        return dict(request)
    with suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(f"{pid}\n".encode())
        _, status = os.waitpid(pid, 0)
        connection.sendall(f"{status}\n".encode())
    os._exit(0)


def become(request: Mapping[str, Any]) -> None:
    """Be the command line that was asked for."""
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for name, number in (("out", 1), ("err", 2)):
        os.dup2(os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    random.seed()
    sys.modules["numpy"].random.seed()
    script = request["script"]
    sys.path.insert(0, str(Path(script).parent))
    sys.argv = [script, *request["words"]]
    runpy.run_path(script, run_name="__main__")


def main() -> None:
    """Import, write one file, which imports more, then answer."""
    for name in PRELOADED:
        with suppress(ModuleNotFoundError):  # an extra that is not installed
            import_module(name)
    with suppress(ModuleNotFoundError):
        import_module("tqdm").tqdm.monitor_interval = 0  # no thread of its own: this process is forked
    torch, api = sys.modules["torch"], sys.modules["graftkit.api"]
    with torch.random.fork_rng():
        api.to_onnx(api.graft(api.trace(torch.nn.ReLU(), torch.zeros(2, 1))))
    request = serve(socket.socket(fileno=int(sys.argv[1])))
    if request is not None:
        become(request)


if __name__ == "__main__":
    main()
