"""Peak memory as a target: bytes that onnxruntime takes at most to load the file and run one row.

It is no cost of a budget: what one dendrite adds is less than processes differ by.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from graftkit.core import sizes
from graftkit.core.errors import PlanError
from graftkit.memory import Peaks
from graftkit.model import GraftedModel
from graftkit.shipping import one_row, to_onnx

_TIMES = 3


@dataclass(frozen=True)
class Memory:
    """Bytes beyond those of a file that does nothing, each in a process of its own; the median of three."""

    name: ClassVar[str] = "memory"
    unit: ClassVar[str] = "bytes"
    units: ClassVar[Mapping[str, float]] = sizes.UNITS

    def given(self, model: GraftedModel) -> float:
        """What the model takes as it stands. Raises PlanError where the system does not tell."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            path.write_bytes(to_onnx(model).SerializeToString())
            found = [Peaks().of(path, dict(one_row(model)), "onnxruntime", 1) for _ in range(_TIMES)]
        told = [peak for peak in found if peak is not None]
        if not told:
            raise PlanError("memory cannot be measured on this system; choose size, parameters, macs or latency")
        return float(statistics.median(told))
