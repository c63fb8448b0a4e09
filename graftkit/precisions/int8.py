"""The `int8` precision: convolutions and matrix products in 8-bit whole numbers, scaled by what training rows give."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar

from graftkit.core.errors import ExportError

if TYPE_CHECKING:
    import onnx

    from graftkit.contracts import Feed

_OPERATORS = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True)
class Int8:
    """onnxruntime's static quantization: `QuantizeLinear` and `DequantizeLinear` around each product (QDQ).

    Weights have a scale for each channel; activations are unsigned, with a scale each from the smallest and largest
    value on the feeds. Weights take 7 of the 8 bits: on a CPU without VNNI products of unsigned and signed bytes are
    summed in pairs in 16 bits, which 8-bit weights overflow (docs/precision.md has what that costs).
    """

    name: ClassVar[str] = "int8"
    summary: ClassVar[str] = "convolutions and matrix products in 8-bit whole numbers"
    opset: ClassVar[int] = 17

    def lower(self, model: onnx.ModelProto, feeds: Sequence[Feed]) -> Iterator[onnx.ModelProto]:
        if not any(node.op_type in _OPERATORS for node in model.graph.node):
            raise ExportError(f"int8: the model has no {', '.join(_OPERATORS)}, so nothing would become smaller")
        yield _quantized(model, feeds)


def _quantized(model: onnx.ModelProto, feeds: Sequence[Feed], leave: Sequence[str] = ()) -> onnx.ModelProto:
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    with TemporaryDirectory() as folder, _quiet():
        path = Path(folder) / "model.onnx"
        quantize_static(
            copy,
            path,
            _reader(feeds),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(_OPERATORS),
            nodes_to_exclude=list(leave),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return onnx.load(path)


def _reader(feeds: Sequence[Feed]) -> Any:
    """The feeds in turn, as onnxruntime reads them."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._waiting = iter(feeds)

        def get_next(self) -> Feed | None:
            return next(self._waiting, None)

    return Reader()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the advice to have onnxruntime rewrite the graph first: it is folded, and its names are to stay."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
