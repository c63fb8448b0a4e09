"""Examines cases in processes of their own, with limits on time and memory; being killed is a result, too."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import selectors
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from .results import KINDS, Base, Row

ROOT = Path(__file__).parents[2]
MOST_CASES = 15  # in one process, whose memory and caches grow


class Worker:
    """A child process that examines one case after another, because importing takes longer than most cases.

    One that failed is examined again in a fresh process: what an earlier case left behind must not count against it.
    """

    def __init__(self, *, seconds: int, gibibytes: int):
        self.seconds, self.gibibytes = seconds, gibibytes
        self.child: subprocess.Popen[bytes] | None = None
        self.done = 0

    def examine(self, name: str, kind: str) -> Row | Base:
        """The "row" or "base" of a case."""
        fresh = self.child is None
        found = self._ask(name, kind)
        if _failed(found) and not fresh:
            self.close()
            found = self._ask(name, kind)
        if self.done >= MOST_CASES or _failed(found):
            self.close()
        return found

    def close(self) -> None:
        """End the process."""
        if self.child is not None:
            with contextlib.suppress(ProcessLookupError):  # it may have ended by itself
                os.killpg(self.child.pid, signal.SIGKILL)
            self.child.communicate()
            self.child, self.done = None, 0

    def _ask(self, name: str, kind: str) -> Row | Base:
        child = self._started()
        assert child.stdin is not None and child.stdout is not None
        self.done += 1
        child.stdin.write(f"{name} {kind}\n".encode())
        child.stdin.flush()
        with selectors.DefaultSelector() as waiting:
            waiting.register(child.stdout, selectors.EVENT_READ)
            answer = child.stdout.readline() if waiting.select(self.seconds) else None
        if answer:
            return KINDS[kind](**json.loads(answer))
        why = f"took longer than {self.seconds} s" if answer is None else f"the process ended: {_end(child)}"
        self.close()
        return KINDS[kind](name=name, family=name.partition("/")[0], cause=why)

    def _started(self) -> subprocess.Popen[bytes]:
        if self.child is None:
            command = [sys.executable, "-W", "ignore", "-m", "tests.zoo.isolate", str(self.gibibytes)]
            self.child = subprocess.Popen(
                command,
                cwd=ROOT,
                start_new_session=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"},
            )
        return self.child


def _failed(found: Row | Base) -> bool:
    return isinstance(found, Row) and found.status == "fail"


def _end(child: subprocess.Popen[bytes]) -> str:
    code = child.wait()
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def main(gibibytes: str) -> None:
    """What the child does: a case a line on its input, a JSON object a line on what was its output."""
    limit = int(gibibytes) << 30
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what models and exporters print is no answer
    import torch

    torch.set_num_threads(1)
    for line in sys.stdin:
        name, kind = line.split()
        print(json.dumps(asdict(_examine(name, kind))), file=answers, flush=True)


def _examine(name: str, kind: str) -> Row | Base:
    from .cases import find

    if kind == "row":
        from .runner import examine

        return examine(find(name))
    from .base import measure

    return measure(find(name))


if __name__ == "__main__":
    main(*sys.argv[1:])
