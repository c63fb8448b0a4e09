"""The `size` cost: bytes of the ONNX file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from graftkit.core import sizes
from graftkit.costs.written import Measured, Pair
from graftkit.model import GraftedModel
from graftkit.shipping import to_onnx


@dataclass(frozen=True)
class Size(Measured):
    """Bytes of the folded ONNX file, without what graftkit tells about the run."""

    name: ClassVar[str] = "size"
    unit: ClassVar[str] = "bytes"
    exact: ClassVar[bool] = True
    units: ClassVar[Mapping[str, float]] = sizes.UNITS

    def given(self, model: GraftedModel) -> float:
        return float(_bytes(to_onnx(model).SerializeToString()))

    def more(self, pair: Pair) -> float:
        return float(_bytes(pair.after) - _bytes(pair.before))


def _bytes(model: bytes) -> int:
    """Bytes without the metadata, which the plan makes longer."""
    import onnx

    proto = onnx.load_from_string(model)
    del proto.metadata_props[:]
    return int(proto.ByteSize())
