"""The `fp16` precision: weights and arithmetic in half precision, inputs and outputs as they were."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    import onnx

    from graftkit.contracts import Feed


@dataclass(frozen=True)
class FP16:
    """onnxruntime's own conversion (`onnxruntime.transformers.float16`).

    Operators that it knows to have no half-precision form stay in fp32, between casts.
    """

    name: ClassVar[str] = "fp16"
    summary: ClassVar[str] = "weights and arithmetic in half precision"
    opset: ClassVar[int] = 17

    def lower(self, model: onnx.ModelProto, feeds: Sequence[Feed]) -> Iterator[onnx.ModelProto]:
        import onnx
        import onnx_ir as ir
        from onnxruntime.transformers.float16 import convert_float_to_float16

        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of weights too small or too large for it; the metric decides
            half = ir.from_proto(convert_float_to_float16(copy, keep_io_types=True))
        half.graph.sort()  # it puts its casts at the end
        yield ir.to_proto(half)
