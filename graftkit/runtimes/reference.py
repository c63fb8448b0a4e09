"""The `reference` runtime: onnx's own evaluator, slow and literal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graftkit.core.errors import ExportError


@dataclass(frozen=True)
class Reference:
    """onnx.reference.ReferenceEvaluator: every operator as the standard's text says, in numpy."""

    name: ClassVar[str] = "reference"

    def open(self, model: bytes, *, threads: int | None = None) -> Callable[[np.ndarray], list[np.ndarray]]:
        import onnx
        from onnx.reference import ReferenceEvaluator

        try:
            evaluator = ReferenceEvaluator(onnx.load_model_from_string(model))
        except Exception as error:  # it raises what the operator's implementation raises
            raise ExportError(f"onnx's reference evaluator does not load the file: {error}") from error
        name, *more = evaluator.input_names
        if more:
            raise ExportError(f"the file has {1 + len(more)} inputs; only models with one can be run to compare")
        return lambda inputs: list(evaluator.run(None, {name: inputs}))
