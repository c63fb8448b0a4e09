"""The `onnxruntime` runtime, on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graftkit.core.errors import ExportError, MismatchError, RuntimeMissingError


@dataclass(frozen=True)
class OnnxRuntime:
    """onnxruntime's CPU execution provider, with its own graph optimisations on."""

    name: ClassVar[str] = "onnxruntime"

    def open(self, model: bytes, *, threads: int | None = None) -> Callable[[np.ndarray], list[np.ndarray]]:
        try:
            import onnxruntime
        except ImportError:
            raise RuntimeMissingError("onnxruntime is not installed: pip install onnxruntime") from None
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
            options.inter_op_num_threads = 1
        try:
            session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors share no base class
            raise ExportError(f"onnxruntime does not load the file: {str(error).splitlines()[0][:300]}") from error
        name, *more = [value.name for value in session.get_inputs()]
        if more:
            raise ExportError(f"the file has {1 + len(more)} inputs; only models with one can be run to compare")

        def run(inputs: np.ndarray) -> list[np.ndarray]:
            try:
                return list(session.run(None, {name: inputs}))
            except Exception as error:
                reason = str(error).splitlines()[0][:200]
                raise MismatchError(f"onnxruntime fails on a batch of {len(inputs)} rows: {reason}") from error

        return run
