"""The `reference` runtime: onnx's own evaluator, slow and literal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

import numpy as np

from graftkit.core.errors import ExportError, MismatchError
from graftkit.runtimes.here import Here
from graftkit.runtimes.ports import first_line, shapes


@dataclass(frozen=True)
class Reference:
    """onnx.reference.ReferenceEvaluator: every operator as the standard's text says, in numpy."""

    name: ClassVar[str] = "reference"

    def version(self) -> str:
        return version("onnx")

    def open(self, model: bytes | Path, *, threads: int | None = None) -> Here:
        import onnx
        from onnx.reference import ReferenceEvaluator

        try:
            proto = onnx.load_model_from_string(model) if isinstance(model, bytes) else onnx.load(str(model))
            evaluator = ReferenceEvaluator(proto)
        except Exception as error:  # it raises what the operator's implementation raises
            raise ExportError(f"onnx's reference evaluator does not load the file: {first_line(error)}") from error
        # without initializers that are listed as inputs, which older files do
        names = [name for name in evaluator.input_names if name not in {t.name for t in proto.graph.initializer}]

        def run(inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
            try:
                with np.errstate(all="ignore"):  # infinity and NaN are compared, not warned of
                    return [np.asarray(value) for value in evaluator.run(None, dict(inputs))]
            except Exception as error:
                reason = first_line(error)
                raise MismatchError(f"onnx's reference evaluator fails on {shapes(inputs)}: {reason}") from error

        return Here(run, names, self.name)
