"""Inference runtimes: the table."""

from __future__ import annotations

from graftkit.contracts import Runtime
from graftkit.core.errors import RuntimeMissingError
from graftkit.core.table import Table
from graftkit.runtimes.browser import Browser
from graftkit.runtimes.mnn import Mnn
from graftkit.runtimes.ncnn import Ncnn
from graftkit.runtimes.node import Node
from graftkit.runtimes.onnxruntime import OnnxRuntime
from graftkit.runtimes.openvino import OpenVino
from graftkit.runtimes.reference import Reference
from graftkit.runtimes.tract import Tract

_ALL: tuple[Runtime, ...] = (OnnxRuntime(), Reference(), OpenVino(), Tract(), Mnn(), Ncnn(), Node(), Browser())
RUNTIMES: Table[Runtime] = Table("runtime", {runtime.name: runtime for runtime in _ALL}, RuntimeMissingError)

__all__ = ["RUNTIMES"]
