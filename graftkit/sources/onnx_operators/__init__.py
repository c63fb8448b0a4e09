"""ONNX operators as functions of torch: those with weights, those on shapes, and what no converter does well."""

from __future__ import annotations

from collections.abc import Mapping

from graftkit.sources.onnx_operators.arithmetic import ARITHMETIC
from graftkit.sources.onnx_operators.branches import branch
from graftkit.sources.onnx_operators.call import Call, Operator, UnsupportedError
from graftkit.sources.onnx_operators.layers import LAYERS
from graftkit.sources.onnx_operators.padding import PADDING
from graftkit.sources.onnx_operators.recurrent import RECURRENT
from graftkit.sources.onnx_operators.reductions import REDUCTIONS
from graftkit.sources.onnx_operators.resizing import RESIZING
from graftkit.sources.onnx_operators.shapes import SHAPES

OPERATORS: Mapping[str, Operator] = {
    **ARITHMETIC, **SHAPES, **REDUCTIONS, **PADDING, **RESIZING, **LAYERS, **RECURRENT, "If": branch,
}  # fmt: skip

# What an operator's inputs are to the module that holds them, "" for values; those of other operators have numbers.
ROLES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("Linear", "Conv", "ConvTranspose", "LayerNormalization"), ("", "weight", "bias")),
    "BatchNormalization": ("", "weight", "bias", "running_mean", "running_var"),
    "Gather": ("weight",),
    "MatMul": ("weight_left", "weight"),
    "Gemm": ("weight_left", "weight", "bias"),
    "Add": ("bias", "bias"),
    "Mul": ("scale", "scale"),
    "Expand": ("weight",),
    "Concat": ("weight",),
    "PRelu": ("", "weight"),
    **dict.fromkeys(("InstanceNormalization", "GroupNormalization"), ("", "weight", "bias")),
    "RMSNormalization": ("", "weight"),
}

# Operators that onnx2fx converts: it passes every test of the ONNX project for them (benchmarks/converters.py), and
# none of them makes up numbers, holds texts or lists, or computes a shape.
_NAMES = (
    "Acos Acosh ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BitShift BitwiseAnd BitwiseNot BitwiseOr "
    "BitwiseXor Celu Col2Im Cos Cosh DepthToSpace Det Einsum Elu Erf Exp Gelu GlobalAveragePool GlobalMaxPool "
    "GridSample GroupNormalization HardSigmoid HardSwish InstanceNormalization IsInf IsNaN LRN "
    "LeakyRelu Log LogSoftmax LpPool MaxPool Mean MeanVarianceNormalization Mish NonZero PRelu RMSNormalization "
    "Relu RotaryEmbedding Round ScatterElements ScatterND Selu Shrink Sigmoid Sign Sin Sinh Softmax Softplus "
    "Softsign Swish Tan Tanh ThresholdedRelu"
)
BORROWED = frozenset(_NAMES.split())

__all__ = ["BORROWED", "OPERATORS", "ROLES", "Call", "Operator", "UnsupportedError"]
