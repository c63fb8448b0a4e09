"""Workers that take many cases each; a crash, a hang or a death by memory is a verdict, too."""

from __future__ import annotations

import multiprocessing
import shutil
import signal
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from queue import Queue

from .case import Case, Verdict
from .worker import HEAVY, HOW, serve

FAULTS = Path("runs/fuzz")
SECONDS = 10  # of processor time, for one file: on a busy machine the clock says little
_STUCK = 90  # seconds by the clock: it waits for something, or the machine is very busy
_STARTS = 300
_MOST_CASES = 1500  # in one process, whose memory and caches grow


class Worker:
    """One process and its folder."""

    def __init__(self, root: Path, seconds: int = SECONDS) -> None:
        self.root = root
        self.seconds = seconds
        self.log = root / "log.txt"
        self.process: BaseProcess | None = None
        self.pipe: Connection | None = None
        self.done = 0

    def examine(self, case: Case) -> Verdict:
        """What becomes of a case; its files are kept where that is a fault."""
        verdict = self._ask(case, case)
        if verdict.outcome == "failed":
            self._keep(verdict)
        if self.done >= _MOST_CASES:
            self.close()
        return verdict

    def again(self, name: str, path: Path) -> Verdict:
        """What becomes of a file that is there already."""
        return self._ask(Case(name, 0, -1), (name, path.resolve()))

    def close(self) -> None:
        """End the process."""
        if self.process is not None and self.pipe is not None:
            self.pipe.close()
            self.process.kill()
            self.process.join()
        self.process, self.pipe, self.done = None, None, 0

    def _ask(self, case: Case, what: object) -> Verdict:
        pipe = self._started()
        self.done += 1
        try:
            pipe.send(what)
            if pipe.poll(_STUCK):
                return pipe.recv()  # type: ignore[no-any-return]
            why = f"was stuck for {_STUCK} s"
        except (EOFError, ConnectionError):
            why = self._end()
        self.close()
        told = self.root / HOW
        return Verdict(case, "failed", why, told.read_text() if told.is_file() else "?", float(self.seconds))

    def _end(self) -> str:
        assert self.process is not None
        self.process.join(10)
        code = self.process.exitcode or 0
        if code == -signal.SIGPROF:
            return f"took more than {self.seconds} s of processor time"
        said = self.log.read_text(errors="replace").strip().splitlines()[-3:]
        return f"the process died of {signal.Signals(-code).name if code < 0 else code}: {' '.join(said)[:400]}"

    def _started(self) -> Connection:
        if self.pipe is None:
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload([*HEAVY])
            self.pipe, theirs = context.Pipe()
            self.process = context.Process(target=serve, args=(theirs, self.root, self.log, self.seconds), daemon=True)
            self.process.start()
            theirs.close()
            if not self.pipe.poll(_STARTS) or self.pipe.recv() != "ready":
                raise RuntimeError(f"no worker starts: {self.log.read_text(errors='replace')[-2000:]}")
        return self.pipe

    def _keep(self, verdict: Verdict) -> None:
        kept = FAULTS / verdict.case.name
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(self.root / "case", kept, symlinks=True)
        (kept / "why.txt").write_text(f"{verdict.how}\n{verdict.why}\n")


def examined(cases: Iterable[Case], *, jobs: int = 1) -> Iterator[Verdict]:
    """The verdicts, as they come."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as root, ThreadPoolExecutor(jobs) as threads:
        workers: Queue[Worker] = Queue()
        for number in range(jobs):
            workers.put(Worker(_folder(Path(root), number)))
        try:
            yield from threads.map(lambda case: _by_one(workers, case), cases)
        finally:
            while not workers.empty():
                workers.get().close()


def read_again(name: str, path: Path) -> Verdict:
    """What the reader of a format makes of a file."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as root:
        worker = Worker(_folder(Path(root), 0))
        try:
            return worker.again(name, path)
        finally:
            worker.close()


def _folder(root: Path, number: int) -> Path:
    folder = root.resolve() / str(number)
    folder.mkdir()
    return folder


def _by_one(workers: Queue[Worker], case: Case) -> Verdict:
    worker = workers.get()
    try:
        return worker.examine(case)
    finally:
        workers.put(worker)
