"""TFLite (LiteRT), by the operator list of onnx2tf.

Source: README.md of github.com/PINTO0309/onnx2tf at commit 2c0cb01 (July 2026), "Builtin supported (ONNX -> TFLite)
in flatbuffer_direct", its default way; the operators of the standard domain. `--tflite_backend tf_converter`, the older
way through TensorFlow, takes some more.
"""

from __future__ import annotations

from graftkit.targets.target import Limit, Target

_OLDER = "convert with --tflite_backend tf_converter"

_OPERATORS = """
Abs Acos Acosh Add AffineGrid And ArgMax ArgMin Asin Asinh Atan Atanh Attention AveragePool BatchNormalization
Bernoulli BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor BlackmanWindow Cast CastLike Ceil Celu
CenterCropPad Clip Col2Im Compress Concat Constant ConstantOfShape Conv ConvInteger ConvTranspose Cos Cosh
CumProd CumSum DFT DeformConv DepthToSpace DequantizeLinear Det Div Dropout DynamicQuantizeLinear Einsum Elu
Equal Erf Exp Expand EyeLike Flatten Floor GRU Gather GatherElements GatherND Gelu Gemm GlobalAveragePool
GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization HammingWindow HannWindow
HardSigmoid HardSwish Hardmax Identity If InstanceNormalization IsInf IsNaN LRN LSTM LayerNormalization
LeakyRelu Less LessOrEqual Log LogSoftmax Loop LpNormalization LpPool MatMul MatMulInteger Max MaxPool
MaxRoiPool MaxUnpool Mean MeanVarianceNormalization MelWeightMatrix Min Mish Mod Mul Neg
NegativeLogLikelihoodLoss NonMaxSuppression NonZero Not OneHot OptionalHasElement Or PRelu Pad Pow QLinearConv
QLinearMatMul QuantizeLinear RNN RandomNormal RandomNormalLike RandomUniform RandomUniformLike Range Reciprocal
ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
ReduceSumSquare Relu Reshape Resize ReverseSequence RoiAlign RotaryEmbedding Round STFT Scatter ScatterElements
ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax SoftmaxCrossEntropyLoss Softplus Softsign
SpaceToDepth Split Sqrt Squeeze StringNormalizer Sub Sum Tan Tanh TensorScatter ThresholdedRelu Tile TopK
Transpose Trilu Unique Unsqueeze Upsample Where Xor
"""

TFLITE = Target(
    name="tflite",
    title="TFLite, through onnx2tf (July 2026)",
    instead=_OLDER,
    operators=frozenset(_OPERATORS.split()),
    limits={
        "AveragePool": Limit(ranks=(4,), instead=_OLDER),
        "BatchNormalization": Limit(constant=(1, 2, 3, 4), instead="fold it into what is before it"),
        "Conv": Limit(ranks=(4, 5), constant=(1,), instead=_OLDER),
        "ConvTranspose": Limit(
            ranks=(3, 4, 5),
            constant=(1,),
            values={"group": (1,), "dilations": ((1,), (1, 1), (1, 1, 1))},
            instead=_OLDER,
        ),
        "Gemm": Limit(ranks=(2,), constant=(1,), values={"transA": (0,)}, instead=_OLDER),
        "GRU": Limit(constant=(1, 2), values={"layout": (0,)}, instead="put the batch second, constant weights"),
        "LSTM": Limit(constant=(1, 2), values={"layout": (0,), "input_forget": (0,)}, instead=_OLDER),
        "MaxPool": Limit(ranks=(4,), outputs=1, instead=_OLDER),
        "Mod": Limit(values={"fmod": (0,)}, instead=_OLDER),
        "Pad": Limit(values={"mode": ("constant", "reflect")}, instead="pad with constants"),
        "PRelu": Limit(constant=(1,), instead="make the slope constant"),
        "Resize": Limit(ranks=(4,), instead="resize in two dimensions"),
        "Slice": Limit(constant=(1,), instead="make the starts constant"),
    },
    notes=("sizes that are free are best fixed when it is converted (onnx2tf -ois, --overwrite_input_shape)",),
)
