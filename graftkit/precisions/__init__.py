"""Smaller numbers for a file: the table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graftkit.core.errors import ExportError
from graftkit.core.table import Table
from graftkit.precisions.bf16 import BF16
from graftkit.precisions.fp16 import FP16
from graftkit.precisions.int4 import Int4
from graftkit.precisions.int8 import Int8

if TYPE_CHECKING:
    from graftkit.contracts import Precision

PRECISIONS: Table[Precision] = Table(
    "precision", {kind.name: kind for kind in (FP16(), BF16(), Int8(), Int4())}, ExportError
)

__all__ = ["PRECISIONS"]
