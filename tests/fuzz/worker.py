"""The process that makes cases and gives them to readers, within limits, watched."""

from __future__ import annotations

import gc
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

from .case import OUTSIDE, SECRET, Case, Format, Place, Verdict

_ADDRESS_SPACE = 6 * 2**30
_GROWTH = 2**30  # of resident memory, for one file of some kilobytes
_LINE = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]{1,3000}")

# Imported once, by the process that workers are forked from: then a worker starts in no time.
HEAVY = ("graftkit.api", "torch.export.pt2_archive._package", "onnx.checker", "onnxruntime", "safetensors.torch")
HOW = "how.txt"  # how the case was broken, for when the process does not live to tell

Outcome = tuple[Literal["loaded", "refused", "failed"], str]


def serve(pipe: Connection, root: Path, log: Path, seconds: int) -> None:
    """Take cases, or (format, path) to read as it is, and give verdicts until the pipe closes."""
    _silence(log)
    shop = Workshop(root, seconds)
    pipe.send("ready")
    while True:
        try:
            asked = pipe.recv()
        except EOFError:
            return
        pipe.send(shop.examine(asked) if isinstance(asked, Case) else shop.again(*asked))


class Workshop:
    """Where cases are made and read: a folder for the case, one beside it that nobody may touch, and good files."""

    def __init__(self, root: Path, seconds: int) -> None:
        from .watching import Tripwire, Watch

        _limit()
        _warm()
        self.seconds = seconds
        self.place = Place(root / "case")
        self.good = root / "good"
        (root / OUTSIDE).mkdir(parents=True, exist_ok=True)
        (root / OUTSIDE / SECRET).write_bytes(bytes(range(256)) * 64)
        self.watch, self.wire = Watch(), Tripwire(root / OUTSIDE)

    def examine(self, case: Case) -> Verdict:
        """Make a case and read it."""
        form = _format(case.format)
        how, path = self._made(case, form)
        (self.good.parent / HOW).write_text(how)
        return self._read(case, how, form, path)

    def again(self, name: str, path: Path) -> Verdict:
        """Read a file, with all that lies beside it, as a case."""
        shutil.rmtree(self.place.folder, ignore_errors=True)
        shutil.copytree(path.parent, self.place.folder, symlinks=True)
        return self._read(Case(name, 0, -1), "as it is", _format(name), self.place.folder / path.name)

    def _made(self, case: Case, form: Format) -> tuple[str, Path]:
        good = self._originals(form)
        shutil.rmtree(self.place.folder, ignore_errors=True)
        self.place.folder.mkdir(parents=True)
        path = self.place.folder / f"net{form.ending}"
        for beside in (self.good / form.name).iterdir():
            if not beside.name.endswith(form.ending):
                shutil.copy(beside, self.place.folder)
        if case.index < len(good):
            path.write_bytes(good[case.index].read_bytes())
            return "unbroken", path
        rng = case.random()
        original, change = rng.choice(good), rng.choice(form.breaks)
        path.write_bytes(change(original.read_bytes(), rng, self.place))
        return change.__name__, path

    def _originals(self, form: Format) -> list[Path]:
        folder = self.good / form.name
        if not folder.exists():
            import torch

            torch.manual_seed(0)
            folder.mkdir(parents=True)
            form.originals(folder)
        return sorted(folder.glob(f"*{form.ending}"))

    def _read(self, case: Case, how: str, form: Format, path: Path) -> Verdict:
        self.wire.touched()  # making the case did that
        before, held = _listing(self.place.folder), _reset_peak()
        started = time.process_time()
        with _limited(self.seconds):
            outcome, why = self._watched(form, path)
        seconds = time.process_time() - started
        faults = [*dict.fromkeys(self.watch.found)]
        if self.wire.touched():
            faults.append("opened a file beyond the case's folder")
        if _listing(self.place.folder) != before:
            faults.append(f"changed the folder: {sorted(_listing(self.place.folder) ^ before)[:3]}")
        if _peak() - held > _GROWTH:
            faults.append(f"took {(_peak() - held) // 2**20} MiB of memory")
        if how == "unbroken" and outcome == "refused":
            faults.append(f"refused a good file: {why}")
        gc.collect()
        return Verdict(case, "failed" if faults else outcome, "; ".join(faults) or why, how, seconds)

    def _watched(self, form: Format, path: Path) -> Outcome:
        from graftkit.core.errors import GraftkitError

        from .watching import Caught

        try:
            with self.watch.over(self.place.folder):
                form.read(path)
        except GraftkitError as error:
            return _judged(str(error), path)
        except Caught as caught:
            return "failed", str(caught)
        except BaseException as error:  # whatever else comes out is a fault, which the verdict tells
            return "failed", f"{type(error).__name__}: {str(error)[:300]} at {_where(error)}"
        return "loaded", ""


def _judged(message: str, path: Path) -> Outcome:
    if not _LINE.fullmatch(message):
        return "failed", f"the message is not one line of text: {message[:400]!r}"
    if path.name not in message:
        return "failed", f"the message does not name the file: {message[:400]}"
    return "refused", message


def _where(error: BaseException) -> str:
    trace = error.__traceback__
    found = "?"
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if "graftkit" in file and "tests" not in file:
            found = f"{Path(file).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return found


def _format(name: str) -> Format:
    from .faulty import FAULTY
    from .formats import FORMATS

    return FORMATS[name] if name in FORMATS else FAULTY[name][0]


def _warm() -> None:
    """Import what readers import when they first need it, so that a case is not charged for that."""
    import onnxruntime  # noqa: F401
    import torch.export.pt2_archive._package

    import graftkit.api  # noqa: F401

    from . import formats  # noqa: F401
    from .nets import base

    warnings.simplefilter("ignore")
    base()  # tracing imports more, and writes environment variables

    tempfile.gettempdir()  # finds out by writing
    gc.collect()
    gc.freeze()  # what is imported stays; looking through it again costs more than most cases
    torch.set_num_threads(1)


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.dont_write_bytecode = True


@contextmanager
def _limited(seconds: int) -> Iterator[None]:
    """After so much processor time the process is ended by SIGPROF; nothing can catch that."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _silence(log: Path) -> None:
    """What C++ has to say goes into a file, for when the process crashes."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)


def _listing(folder: Path) -> set[tuple[str, int]]:
    return {(str(path.relative_to(folder)), path.lstat().st_size) for path in folder.rglob("*")}


def _reset_peak() -> int:
    """Start to measure the largest resident memory, in bytes; what it is now."""
    Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    told = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(told.group(1)) * 1024 if told else 0
