"""The `ncnn` runtime: Tencent's engine for phones, in a process of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from graftkit.contracts import Session
from graftkit.core.errors import ExportError, shown
from graftkit.runtimes.channel import Elsewhere, opened
from graftkit.runtimes.described import Described, Value, described
from graftkit.runtimes.interpreters import Interpreter
from graftkit.runtimes.pnnx import spelled
from graftkit.runtimes.ports import first_line
from graftkit.runtimes.sized import Sized


@dataclass(frozen=True)
class Ncnn:
    """ncnn on the CPU in full precision; pnnx converts the file when it is opened.

    It has no batch: rows are run one after another. Where other sizes are free, the file is converted for each it is
    given.
    """

    name: ClassVar[str] = "ncnn"
    interpreter: ClassVar[Interpreter] = Interpreter("ncnn", "ncnn", "with_ncnn.py", "GRAFTKIT_NCNN_PYTHON")

    def version(self) -> str:
        worker, version = self.interpreter.start()
        worker.close()
        return version

    def open(self, model: bytes | Path, *, threads: int | None = None) -> Session:
        file = described(model, self.name)
        batch, free = _batch(file), file.free()
        if None in free or not set(free) - {batch}:
            return self._opened(file, batch, threads)
        self.version()  # whether it is there at all
        return Sized(file, lambda fixed: self._opened(fixed, batch, threads), batch)

    def _opened(self, file: Described, batch: str | None, threads: int | None) -> Rows | Elsewhere:
        worker, _ = self.interpreter.start()
        try:
            one = _of_one_row(file, batch)
        except Exception:
            worker.close()
            raise
        session = opened(worker, one, threads)
        return session if batch is None else Rows(file, session, batch)


@dataclass(eq=False)
class Rows:
    """A session that runs one row at a time; `batch` is what the file calls the number of rows."""

    file: Described
    one: Elsewhere
    batch: str

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        self.file.check(inputs)
        count = next(len(inputs[value.name]) for value in self.file.inputs if _has(value, self.batch))
        found = [self.one(self._row(inputs, number)) for number in range(count)]
        if not found:
            return [np.zeros([0 if isinstance(s, str) else s or 0 for s in v.shape or ()], v.dtype)
                    for v in self.file.outputs]  # fmt: skip
        columns = zip(self.file.outputs, zip(*found, strict=True), strict=True)
        return [np.concatenate(rows) if _has(value, self.batch) else rows[0] for value, rows in columns]

    def seconds(self, inputs: Mapping[str, np.ndarray], times: int) -> list[float]:
        self.file.check(inputs)
        count = next(len(inputs[value.name]) for value in self.file.inputs if _has(value, self.batch))
        each = [self.one.seconds(self._row(inputs, number), times) for number in range(count)]
        return [sum(row) for row in zip(*each, strict=True)]

    def close(self) -> None:
        self.one.close()

    def _row(self, inputs: Mapping[str, np.ndarray], number: int) -> dict[str, np.ndarray]:
        rows = {value.name: _has(value, self.batch) for value in self.file.inputs}
        return {name: array[number : number + 1] if rows[name] else array for name, array in inputs.items()}


def _batch(file: Described) -> str | None:
    """The name of the free first size, None where no first size is free."""
    firsts = [value.shape[0] for value in file.inputs if value.shape]
    return next((size for size in firsts if isinstance(size, str)), None)


def _has(value: Value, batch: str) -> bool:
    return bool(value.shape) and value.shape is not None and value.shape[0] == batch


def _of_one_row(file: Described, batch: str | None) -> Described:
    """The file for one row, as pnnx reads it. Raises ExportError where another size is free."""
    one = file if batch is None else file.at({batch: 1})
    for value in one.inputs:
        if value.shape is None or not all(isinstance(size, int) for size in value.shape):
            raise ExportError(
                f"ncnn does not load the file: {value.text()} has free sizes without a name besides the rows; it has to"
                " know them"
            )
    try:
        return replace(one, content=spelled(one.content))
    except Exception as error:  # a file that holds less than it says
        raise ExportError(f"ncnn does not load the file: {shown(first_line(error))}") from error
