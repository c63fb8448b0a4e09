"""A session of a runtime that is a library of this process."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from graftkit.contracts import Run
from graftkit.runtimes.ports import check_names


@dataclass(eq=False)
class Here:
    """A runtime's own call, with checked names; runs are timed around it.

    Attributes:
        run: from inputs by name to all outputs; raises MismatchError. None once it is closed.
        names: of the inputs that the file takes.
        runtime: its name, for messages.
    """

    run: Run | None
    names: Sequence[str]
    runtime: str

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        check_names(inputs, self.names, self.runtime)
        assert self.run is not None, "the session is closed"
        return self.run(inputs)

    def seconds(self, inputs: Mapping[str, np.ndarray], times: int) -> list[float]:
        check_names(inputs, self.names, self.runtime)
        assert self.run is not None, "the session is closed"
        found = []
        for _ in range(times):
            begun = time.perf_counter()
            self.run(inputs)
            found.append(time.perf_counter() - begun)
        return found

    def close(self) -> None:
        self.run = None
