"""The `mnn` runtime: Alibaba's engine for phones, in a process of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from graftkit.runtimes.channel import Elsewhere, opened
from graftkit.runtimes.described import described
from graftkit.runtimes.interpreters import Interpreter


@dataclass(frozen=True)
class Mnn:
    """MNN on the CPU in full precision; the file is converted when it is opened.

    It overwrites an output that another node reads, takes GELU for its approximation by tanh and any constant behind a
    norm for its weights, and knows whole numbers of 32 bits alone.
    """

    name: ClassVar[str] = "mnn"
    interpreter: ClassVar[Interpreter] = Interpreter("mnn", "MNN", "with_mnn.py", "GRAFTKIT_MNN_PYTHON")

    def version(self) -> str:
        worker, version = self.interpreter.start()
        worker.close()
        return version

    def open(self, model: bytes | Path, *, threads: int | None = None) -> Elsewhere:
        worker, _ = self.interpreter.start()
        try:
            file = described(model, self.name)
        except Exception:
            worker.close()
            raise
        return opened(worker, file, threads)
