"""The `int8` precision: convolutions and matrix products in 8-bit whole numbers, scaled by what training rows give."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import numpy as np
import onnx

from graftkit.contracts import Feed, Lowered
from graftkit.core.errors import ExportError

_OPERATORS = ("Conv", "Gemm", "MatMul")
_FEW = 2  # feeds that show which nodes cost the most


@dataclass(frozen=True)
class Int8:
    """onnxruntime's static quantization: `QuantizeLinear` and `DequantizeLinear` around each product (QDQ).

    Weights have a scale for each channel; activations are unsigned, with a scale each from the smallest and largest
    value on the feeds. Weights take 7 of the 8 bits: on a CPU without VNNI products of unsigned and signed bytes are
    summed in pairs in 16 bits, which 8-bit weights overflow (docs/precision.md has what that costs).

    Further forms leave the 1, 2, 4, ... nodes in fp32 that change the first output the most by themselves, up to half.
    """

    name: ClassVar[str] = "int8"
    summary: ClassVar[str] = "convolutions and matrix products in 8-bit whole numbers"
    opset: ClassVar[int] = 17

    def lower(self, model: onnx.ModelProto, feeds: Sequence[Feed]) -> Iterator[Lowered]:
        names = [node.name for node in model.graph.node if node.op_type in _OPERATORS]
        if not names:
            raise ExportError(f"int8: the model has no {', '.join(_OPERATORS)}, so nothing would become smaller")
        yield Lowered(_quantized(model, feeds))
        worst = _by_error(model, feeds[:_FEW], names)
        count = 1
        while count <= len(names) // 2:
            left = worst[:count]
            note = f"left in fp32, where whole numbers cost the most: {', '.join(left)}"
            yield Lowered(_quantized(model, feeds, left), (note,))
            count *= 2


def _by_error(model: onnx.ModelProto, feeds: Sequence[Feed], names: Sequence[str]) -> list[str]:
    """Nodes by how much the first output changes where that node alone is quantized, the most first."""
    plain = _first_output(model, feeds)
    errors = {}
    for name in names:
        alone = _quantized(model, feeds, [other for other in names if other != name])
        errors[name] = float(np.square(_first_output(alone, feeds) - plain).mean())
    return sorted(names, key=lambda name: errors[name], reverse=True)


def _first_output(model: onnx.ModelProto, feeds: Sequence[Feed]) -> np.ndarray:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    outputs = [np.asarray(session.run(None, dict(feed))[0], np.float64) for feed in feeds]
    return np.concatenate([output.reshape(-1) for output in outputs])


def _quantized(model: onnx.ModelProto, feeds: Sequence[Feed], leave: Sequence[str] = ()) -> onnx.ModelProto:
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
