"""Where a file may go besides the runtimes: the table of targets, and the check against their lists."""

from __future__ import annotations

from graftkit.core.errors import RuntimeMissingError
from graftkit.core.table import Table
from graftkit.targets.checked import check
from graftkit.targets.coreml import COREML
from graftkit.targets.executorch import EXECUTORCH
from graftkit.targets.rknn import RKNN
from graftkit.targets.target import Finding, Limit, Target
from graftkit.targets.tensorrt import TENSORRT
from graftkit.targets.tflite import TFLITE

TARGETS: Table[Target] = Table(
    "target", {target.name: target for target in (TENSORRT, COREML, TFLITE, EXECUTORCH, RKNN)}, RuntimeMissingError
)

__all__ = ["TARGETS", "Finding", "Limit", "Target", "check"]
