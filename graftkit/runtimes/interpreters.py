"""Where a runtime's package is: in this process's environment, or in one of its own that the user names."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from graftkit.core.errors import RuntimeMissingError
from graftkit.runtimes.channel import Refused
from graftkit.runtimes.worker import Worker

_WORKERS = Path(__file__).with_name("workers")


@dataclass(frozen=True)
class Interpreter:
    """A worker script, and the Python that is to run it.

    Attributes:
        runtime: the runtime's name, and that of the extra.
        module: what the package is imported as.
        script: the worker's file.
        variable: the environment variable that may name a Python. A folder such as .venv is never looked into: whoever
            made the current folder need not be trusted.
    """

    runtime: str
    module: str
    script: str
    variable: str

    def start(self) -> tuple[Worker, str]:
        """A worker, and the version of its package. Raises RuntimeMissingError."""
        worker = Worker([*self._python(), str(_WORKERS / self.script)])
        try:
            header, _ = worker.ask({"do": "version"}, {})
        except Refused as error:
            worker.close()
            named = os.environ.get(self.variable)
            where = f"the Python that {self.variable} names" if named else "this environment's package"
            raise RuntimeMissingError(f"{self.runtime} does not start in {where}: {error}") from error
        return worker, str(header["version"])

    def _python(self) -> list[str]:
        if named := os.environ.get(self.variable):
            if not os.access(named, os.X_OK) or not Path(named).is_file():
                raise RuntimeMissingError(f"{self.variable} names {named}, which is no Python that can be started")
            return [str(Path(named).absolute()), "-E", "-s"]  # what is on our path is not for another Python
        spec = find_spec(self.module)
        if spec is None or spec.origin is None:  # a folder of that name is no package
            raise RuntimeMissingError(
                f"{self.runtime} is not installed: pip install 'graftkit[{self.runtime}]', or set {self.variable} to"
                " the Python of an environment that has it, such as `make runtimes` makes"
            )
        return [sys.executable]
