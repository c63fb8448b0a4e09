"""The `onnxruntime` runtime, on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from graftkit.core.errors import ExportError, MismatchError, RuntimeMissingError
from graftkit.runtimes.here import Here
from graftkit.runtimes.ports import first_line, shapes

_LARGE = 2**28  # bytes; packing such weights anew for speed would double them


@dataclass(frozen=True)
class OnnxRuntime:
    """onnxruntime's CPU execution provider, with its own graph optimisations on."""

    name: ClassVar[str] = "onnxruntime"

    def version(self) -> str:
        return str(_package().__version__)

    def open(self, model: bytes | Path, *, threads: int | None = None) -> Here:
        onnxruntime = _package()
        options = _options(onnxruntime, threads, spare_memory=_size(model) > _LARGE)
        content = model if isinstance(model, bytes) else str(model)
        try:
            session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors share no base class
            raise ExportError(f"onnxruntime does not load the file: {first_line(error)}") from error
        names = [value.name for value in session.get_inputs()]

        def run(inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
            try:
                return list(session.run(None, dict(inputs)))
            except Exception as error:
                raise MismatchError(f"onnxruntime fails on {shapes(inputs)}: {first_line(error)}") from error

        return Here(run, names, self.name)


def _package() -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise RuntimeMissingError("onnxruntime is not installed: pip install onnxruntime") from None
    return onnxruntime


def _options(onnxruntime: Any, threads: int | None, *, spare_memory: bool) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
    if spare_memory:  # weights are used where they are mapped into memory
        options.add_session_config_entry("session.disable_prepacking", "1")
        options.enable_cpu_mem_arena = False
    return options


def _size(model: bytes | Path) -> int:
    """Bytes of a model and of the weights that it has beside its file."""
    if isinstance(model, bytes):
        return len(model)
    from onnx import external_data_helper, load

    try:
        tensors = load(str(model), load_external_data=False).graph.initializer
        outside = [tensor for tensor in tensors if external_data_helper.uses_external_data(tensor)]
        names = {external_data_helper.ExternalDataInfo(tensor).location for tensor in outside}
        return sum(path.stat().st_size for path in (model, *(model.parent / name for name in names)))
    except Exception:  # what is wrong with the file, loading it will say
        return 0
