"""The `tract` runtime: inference in plain Rust, for small devices."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from graftkit.core.errors import ExportError, MismatchError, RuntimeMissingError
from graftkit.runtimes.described import Described, described
from graftkit.runtimes.here import Here
from graftkit.runtimes.ports import shapes, telling_line


@dataclass(frozen=True)
class Tract:
    """tract's optimised plan on the CPU; it has one thread, whatever is asked for."""

    name: ClassVar[str] = "tract"

    def version(self) -> str:
        _package()
        return version("tract")

    def open(self, model: bytes | Path, *, threads: int | None = None) -> Here:
        tract = _package()
        file = described(model, self.name)
        try:
            plan = _plan(tract, file)
        except Exception as error:  # what ctypes and the library raise
            raise ExportError(f"tract does not load the file: {telling_line(error)}") from error

        def run(inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
            given = file.check(inputs)
            try:
                return file.typed([tensor.to_numpy() for tensor in plan.run(given)])
            except Exception as error:
                raise MismatchError(f"tract fails on {shapes(inputs)}: {telling_line(error)}") from error

        return Here(run, [value.name for value in file.inputs], self.name)


def _plan(tract: Any, file: Described) -> Any:
    """It reads files alone, and any other that a model names: so it is given one that names none."""
    with tempfile.TemporaryDirectory(prefix="graftkit-") as folder:
        path = Path(folder, "model.onnx")
        path.write_bytes(file.content)
        return tract.onnx().load(path).into_model().into_runnable()


def _package() -> Any:
    try:
        import tract
    except ImportError:
        raise RuntimeMissingError("tract is not installed: pip install 'graftkit[tract]'") from None
    return tract
