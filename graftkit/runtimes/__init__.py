"""Inference runtimes: the table."""

from __future__ import annotations

from graftkit.contracts import Runtime
from graftkit.core.errors import RuntimeMissingError
from graftkit.core.table import Table
from graftkit.runtimes.onnxruntime import OnnxRuntime
from graftkit.runtimes.reference import Reference

RUNTIMES: Table[Runtime] = Table(
    "runtime", {runtime.name: runtime for runtime in (OnnxRuntime(), Reference())}, RuntimeMissingError
)

__all__ = ["RUNTIMES"]
