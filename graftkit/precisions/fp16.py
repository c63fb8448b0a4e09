"""The `fp16` precision: weights and arithmetic in half precision, inputs and outputs as they were."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx
import onnx_ir as ir

from graftkit.contracts import Feed, Lowered
from graftkit.core.errors import ExportError

_MOST = 65504.0  # the largest number of half precision
_MASK = 1e30


@dataclass(frozen=True)
class FP16:
    """onnxruntime's own conversion (`onnxruntime.transformers.float16`).

    Operators that it knows to have no half-precision form stay in fp32, between casts. onnxruntime's CPU provider has
    few half-precision kernels on x86 and computes the rest in fp32, where a value too large would not show; so the
    model's own values are looked at, too.
    """

    name: ClassVar[str] = "fp16"
    summary: ClassVar[str] = "weights and arithmetic in half precision"
    opset: ClassVar[int] = 17

    def lower(self, model: onnx.ModelProto, feeds: Sequence[Feed]) -> Iterator[Lowered]:
        from onnxruntime.transformers.float16 import convert_float_to_float16

        for feed in feeds[:1]:
            _check_range(model, feed)
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of weights too small or too large for it; the metric decides
            half = ir.from_proto(convert_float_to_float16(copy, keep_io_types=True))
        half.graph.sort()  # it puts its casts at the end
        yield Lowered(ir.to_proto(half))


def _check_range(model: onnx.ModelProto, feed: Feed) -> None:
    """Raise ExportError where a node gives what half precision does not hold."""
    import onnxruntime

    names = [name for node in model.graph.node for name in node.output if name]
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    copy.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(copy.SerializeToString(), options, providers=["CPUExecutionProvider"])
    for name, values in zip(names, session.run(names, dict(feed)), strict=True):
        largest = _largest(values)
        if largest > _MOST:
            node = next(node.name for node in model.graph.node if name in node.output)
            raise ExportError(f"fp16: {node} gives {largest:.3g}, and half precision ends at {_MOST:g}; choose bf16")


def _largest(values: object) -> float:
    """The largest magnitude of floats; what masks, such as the smallest number there is, is out of range on purpose."""
    if not (isinstance(values, np.ndarray) and values.dtype == np.float32):
        return 0.0
    sizes = np.abs(values[np.isfinite(values)])
    return float(sizes[sizes < _MASK].max(initial=0.0))
