"""TensorRT, by the operator list of its ONNX parser.

Source: `docs/operators.md` of github.com/onnx/onnx-tensorrt at commit 96e7811 (June 2024, TensorRT 10): the operators
marked as supported, opsets 9 to 20, types, and restrictions. Newer releases may take more.
"""

from __future__ import annotations

from graftkit.targets.target import Limit, Target

_POOL = Limit(ranks=(4, 5), values={"dilations": ((1, 1), (1, 1, 1))}, instead="pool in two or three dimensions")
_REDUCED = Limit(constant=(1,), instead="make the axes constant")
_ZERO = "quantize symmetrically (zero points of zero), or let TensorRT calibrate the fp32 file"

_OPERATORS = """
Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast CastLike
Ceil Celu Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DeformConv
DepthToSpace DequantizeLinear Div Dropout Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor GRU
Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool Greater
GreaterOrEqual GridSample GroupNormalization HardSigmoid HardSwish Hardmax Identity If
InstanceNormalization IsInf IsNaN LRN LSTM LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax
Loop LpNormalization LpPool MatMul Max MaxPool Mean MeanVarianceNormalization Min Mish Mod Mul Neg
NonMaxSuppression NonZero Not OneHot Or PRelu Pad Pow QuantizeLinear RNN RandomNormal RandomNormalLike
RandomUniform RandomUniformLike Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp
ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize ReverseSequence
RoiAlign Round Scan Scatter ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice
Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile TopK
Transpose Trilu Unsqueeze Upsample Where Xor
"""

TENSORRT = Target(
    name="tensorrt",
    title="TensorRT 10 (onnx-tensorrt, June 2024)",
    instead="write the model without it, or add a TensorRT plugin",
    opsets=(9, 20),
    operators=frozenset(_OPERATORS.split()),
    types=(
        *("DOUBLE", "FLOAT", "FLOAT16", "BFLOAT16", "INT64", "INT32", "INT8", "UINT8", "INT4", "BOOL"),
        *("FLOAT8E4M3FN",),
    ),
    limits={
        "AveragePool": _POOL,
        "MaxPool": Limit(
            ranks=(4, 5), values=_POOL.values, outputs=1, instead="pool in two or three dimensions, without indices"
        ),
        "LpPool": Limit(values=_POOL.values, instead="pool without dilation"),
        "CumSum": Limit(constant=(1,), instead="make the axis constant"),
        "DequantizeLinear": Limit(types=("INT8", "INT4", "FLOAT8E4M3FN"), zero=(2,), instead=_ZERO),
        "QuantizeLinear": Limit(zero=(2,), instead=_ZERO),
        "LayerNormalization": Limit(outputs=1, instead="use its first output alone"),
        "LSTM": Limit(values={"input_forget": (0,), "layout": (0,)}, instead="put the batch second"),
        "ScatterND": Limit(values={"reduction": ("none",)}, instead="add to the scattered values afterwards"),
        "Slice": Limit(constant=(3,), instead="make the axes constant"),
        "Squeeze": _REDUCED,
        "Unsqueeze": _REDUCED,
        "TopK": Limit(values={"sorted": (1,)}, instead="have it sorted"),
        "GridSample": Limit(ranks=(4,), types=("FLOAT", "FLOAT16"), instead="sample in two dimensions"),
        "Resize": Limit(
            values={
                "mode": ("nearest", "linear"),
                "antialias": (0,),
                "keep_aspect_ratio_policy": ("stretch",),
                "coordinate_transformation_mode": (
                    *("half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn", "asymmetric", "align_corners"),
                ),
            },
            instead="resize to the nearest, or linearly",
        ),
        **{
            f"Reduce{name}": _REDUCED
            for name in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
        },
    },
    notes=("sizes that are free need an optimization profile (trtexec --minShapes, --optShapes, --maxShapes)",),
)
