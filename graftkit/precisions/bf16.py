"""The `bf16` precision: weights are kept as bfloat16, arithmetic is that of fp32."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import ml_dtypes
import onnx
from onnx import TensorProto, helper, numpy_helper

from graftkit.contracts import Feed, Lowered
from graftkit.core.errors import ExportError

_LEAST = 128  # numbers; the cast back takes more of a file than a smaller tensor saves


@dataclass(frozen=True)
class BF16:
    """Each large weight as bfloat16 with a `Cast` to fp32 behind it, which runtimes fold when they load the file.

    Arithmetic stays fp32: onnxruntime's CPU provider has no bfloat16 kernel of Conv, Gemm, MatMul, Add, Mul, Relu,
    Tanh, Sigmoid, MaxPool or Softmax, so a file that computed in it could not be run, and not be verified, there.
    """

    name: ClassVar[str] = "bf16"
    summary: ClassVar[str] = "weights kept as bfloat16, arithmetic in fp32"
    opset: ClassVar[int] = 17

    def lower(self, model: onnx.ModelProto, feeds: Sequence[Feed]) -> Iterator[Lowered]:

        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        large = [
            tensor
            for tensor in copy.graph.initializer
            if tensor.data_type == onnx.TensorProto.FLOAT and prod(tensor.dims) >= _LEAST
        ]
        if not large:
            raise ExportError(f"bf16: no weight has {_LEAST} numbers or more, so nothing would become smaller")
        casts = [_kept_as_bf16(tensor) for tensor in large]
        nodes = [*casts, *copy.graph.node]
        del copy.graph.node[:]
        copy.graph.node.extend(nodes)
        yield Lowered(copy)


def _kept_as_bf16(tensor: onnx.TensorProto) -> onnx.NodeProto:
    """Change a weight in place, and rename it; the node that gives its numbers under its own name."""
    name = tensor.name
    values = numpy_helper.to_array(tensor).astype(ml_dtypes.bfloat16)
    tensor.CopyFrom(numpy_helper.from_array(values, f"{name}.bf16"))
    return helper.make_node("Cast", [tensor.name], [name], name=f"{name}/Cast", to=TensorProto.FLOAT)
