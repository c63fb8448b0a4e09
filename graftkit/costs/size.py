"""The `size` cost: bytes of the ONNX file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from graftkit.costs.cost import Counts, Prices
from graftkit.costs.written import Pair, prices, with_grafts
from graftkit.model import GraftedModel
from graftkit.plan import Graft
from graftkit.shipping import to_onnx


@dataclass(frozen=True)
class Size:
    """Bytes of the folded ONNX file, without what graftkit tells about the run."""

    name: ClassVar[str] = "size"
    unit: ClassVar[str] = "bytes"
    units: ClassVar[Mapping[str, float]] = {"": 1, "B": 1, "kB": 1e3, "KB": 1e3, "MB": 1e6, "KiB": 2**10, "MiB": 2**20}

    def given(self, model: GraftedModel) -> float:
        return float(_bytes(to_onnx(model).SerializeToString()))

    def added(self, model: GraftedModel, grafts: Sequence[Graft]) -> float:
        return _more(with_grafts(model, grafts))

    def prices(self, model: GraftedModel, grafts: Sequence[Graft], counts: Counts) -> Prices:
        return prices(model, grafts, counts, _more)


def _more(pair: Pair) -> float:
    return float(_bytes(pair.after) - _bytes(pair.before))


def _bytes(model: bytes) -> int:
    """Bytes without the metadata, which the plan makes longer."""
    import onnx

    proto = onnx.load_from_string(model)
    del proto.metadata_props[:]
    return int(proto.ByteSize())
