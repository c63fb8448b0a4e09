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

    It merges a ReLU into what is before it even where that is an output itself, and gives whole numbers of 32 bits.
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
