"""The `openvino` runtime, on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from graftkit.core.errors import ExportError, MismatchError, RuntimeMissingError
from graftkit.runtimes.described import described
from graftkit.runtimes.here import Here
from graftkit.runtimes.ports import shapes, telling_line


@dataclass(frozen=True)
class OpenVino:
    """OpenVINO's CPU device, in single precision where the processor would take less by itself."""

    name: ClassVar[str] = "openvino"

    def version(self) -> str:
        _package()
        return version("openvino")

    def open(self, model: bytes | Path, *, threads: int | None = None) -> Here:
        core = _package().Core()
        file = described(model, self.name)
        settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
        try:
            request = core.compile_model(core.read_model(file.content), "CPU", settings).create_infer_request()
        except Exception as error:  # its errors share no base class
            raise ExportError(f"openvino does not load the file: {telling_line(error)}") from error

        def run(inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
            given = file.check(inputs)  # it takes other types and sizes without a word
            try:
                found = request.infer(dict(enumerate(given)))
                return file.typed([np.array(found[index]) for index in range(len(file.outputs))])
            except Exception as error:
                raise MismatchError(f"openvino fails on {shapes(inputs)}: {telling_line(error)}") from error

        return Here(run, [value.name for value in file.inputs], self.name)


def _package() -> Any:
    try:
        import openvino
    except ImportError:
        raise RuntimeMissingError("openvino is not installed: pip install 'graftkit[openvino]'") from None
    return openvino
