"""The `tract` runtime: inference in plain Rust, for small devices, in a process of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from graftkit.contracts import Session
from graftkit.core.errors import ExportError
from graftkit.runtimes.channel import Elsewhere, opened
from graftkit.runtimes.described import Described, described
from graftkit.runtimes.interpreters import Interpreter
from graftkit.runtimes.sized import Sized, UntilSized


@dataclass(frozen=True)
class Tract:
    """tract's optimised plan on the CPU; it has one thread, whatever is asked for.

    Of some operators it has to know all sizes: then a file with free ones is planned anew for each that it is given. Of
    some it says so when it is run.
    """

    name: ClassVar[str] = "tract"
    interpreter: ClassVar[Interpreter] = Interpreter("tract", "tract", "with_tract.py", "GRAFTKIT_TRACT_PYTHON")

    def version(self) -> str:
        worker, version = self.interpreter.start()
        worker.close()
        return version

    def open(self, model: bytes | Path, *, threads: int | None = None) -> Session:
        file = described(model, self.name)
        try:
            session = self._opened(file)
        except ExportError as error:
            if not file.free():
                raise
            return Sized.after(error, file, self._opened)
        return UntilSized(session, file, self._opened) if file.free() else session

    def _opened(self, file: Described) -> Elsewhere:
        worker, _ = self.interpreter.start()
        return opened(worker, file, None)
