"""Rockchip's NPUs, by the operator list of RKNN-Toolkit2.

Source: `doc/RKNNToolKit2_OP_Support-v2.1.0.md` of github.com/airockchip/rknn-toolkit2 (opset 19): operators without
"Not Supported", and the remarks beside them. What an NPU computes itself, and what falls back to the CPU, is in its
RKNN_Compiler_Support_Operator_List, which is not checked here.
"""

from __future__ import annotations

from graftkit.targets.target import Limit, Target

_ONE = Limit(batch_one=True, instead="convert with a batch of 1")

_OPERATORS = """
Add And ArgMax ArgMin AveragePool BatchNormalization Cast Clip Concat Constant ConstantOfShape Conv
ConvTranspose Cos DepthToSpace DequantizeLinear Div Dropout Elu Equal Erf Exp Expand EyeLike Flatten
Floor GRU Gather GatherElements Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual HardSigmoid
HardSwish Identity If InstanceNormalization LRN LSTM LayerNormalization LeakyRelu Less LessOrEqual Log
LogSoftmax LpNormalization MatMul Max MaxPool MaxRoiPool MaxUnpool MeanVarianceNormalization Min Mish
Mod Mul PRelu Pad Pow QuantizeLinear ReduceMax ReduceMean ReduceMin ReduceSum Relu Reshape Resize
ReverseSequence RoiAlign ScatterND Shape Sigmoid Sin Size Slice Softmax Softplus SpaceToDepth Split Sqrt
Squeeze Sub Tanh Tile Transpose Unsqueeze Where
"""

RKNN = Target(
    name="rknn",
    title="RKNN-Toolkit2 2.1.0",
    instead="write the model without it, or register a custom operator of RKNN-Toolkit2",
    opsets=(1, 19),
    operators=frozenset(_OPERATORS.split()),
    limits={
        **dict.fromkeys(("GRU", "LogSoftmax", "RoiAlign", "Slice", "Softmax", "Tile"), _ONE),
        "EyeLike": Limit(constant=(0,), instead="make its input constant"),
        "If": Limit(constant=(0,), instead="make the condition constant"),
        "Resize": Limit(values={"mode": ("nearest", "linear")}, instead="resize to the nearest, or linearly"),
    },
    notes=("sizes that are free have to be given to rknn.load_onnx (input_size_list), with a batch of 1",),
)
