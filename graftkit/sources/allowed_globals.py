"""The names that a model pickle may import without trust: each is harmless to call with any arguments.

Harmless means: no name takes a callable that it calls with the file's arguments, looks an attribute up by
a name from the file, or reads or writes anything but tensors. Left out on purpose: `Module` itself, lazy
modules (they keep hooks), losses, data-parallel wrappers, and `torch._tensor._rebuild_from_type_v2` (it
calls what it is given). What of these a file may call, and at which sizes, `pickle_rules` says.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

_MODULES: Mapping[str, str] = {
    "activation": (
        "CELU ELU GELU GLU Hardshrink Hardsigmoid Hardswish Hardtanh LeakyReLU LogSigmoid LogSoftmax Mish"
        " MultiheadAttention PReLU RReLU ReLU ReLU6 SELU SiLU Sigmoid Softmax Softmax2d Softmin Softplus"
        " Softshrink Softsign Tanh Tanhshrink Threshold"
    ),
    "batchnorm": "BatchNorm1d BatchNorm2d BatchNorm3d",
    "channelshuffle": "ChannelShuffle",
    "container": "ModuleDict ModuleList ParameterDict ParameterList Sequential",
    "conv": "Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d ConvTranspose3d",
    "distance": "CosineSimilarity PairwiseDistance",
    "dropout": "AlphaDropout Dropout Dropout1d Dropout2d Dropout3d FeatureAlphaDropout",
    "flatten": "Flatten Unflatten",
    "fold": "Fold Unfold",
    "instancenorm": "InstanceNorm1d InstanceNorm2d InstanceNorm3d",
    "linear": "Bilinear Identity Linear NonDynamicallyQuantizableLinear",
    "normalization": "CrossMapLRN2d GroupNorm LayerNorm LocalResponseNorm RMSNorm",
    "padding": (
        "CircularPad1d CircularPad2d CircularPad3d ConstantPad1d ConstantPad2d ConstantPad3d"
        " ReflectionPad1d ReflectionPad2d ReflectionPad3d ReplicationPad1d ReplicationPad2d"
        " ReplicationPad3d ZeroPad1d ZeroPad2d ZeroPad3d"
    ),
    "pixelshuffle": "PixelShuffle PixelUnshuffle",
    "pooling": (
        "AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveAvgPool3d AdaptiveMaxPool1d AdaptiveMaxPool2d"
        " AdaptiveMaxPool3d AvgPool1d AvgPool2d AvgPool3d LPPool1d LPPool2d LPPool3d MaxPool1d MaxPool2d"
        " MaxPool3d MaxUnpool1d MaxUnpool2d MaxUnpool3d"
    ),
    "rnn": "GRU GRUCell LSTM LSTMCell RNN RNNCell",
    "sparse": "Embedding EmbeddingBag",
    "transformer": (
        "Transformer TransformerDecoder TransformerDecoderLayer TransformerEncoder TransformerEncoderLayer"
    ),
    "upsampling": "Upsample UpsamplingBilinear2d UpsamplingNearest2d",
}

_OTHERS: Mapping[str, str] = {
    "builtins": "set",
    "collections": "OrderedDict",
    "torch": (
        "BFloat16Storage BoolStorage ByteStorage CharStorage DoubleStorage FloatStorage HalfStorage"
        " IntStorage LongStorage ShortStorage Size bfloat16 bool device float16 float32 float64 int16"
        " int32 int64 int8 uint8"
    ),
    "torch._C._nn": "elu_ gelu hardsigmoid hardswish hardtanh leaky_relu log_sigmoid relu6 silu softplus",
    "torch._utils": "_rebuild_parameter _rebuild_tensor_v2",
    "torch.nn.functional": (
        "celu elu gelu glu hardsigmoid hardswish hardtanh leaky_relu logsigmoid mish relu relu6 selu"
        " sigmoid silu softplus softsign tanh tanhshrink"
    ),
    "torch.nn.parameter": "Parameter",
    "torch.storage": "UntypedStorage",
}

_TABLE: Mapping[str, str] = {f"torch.nn.modules.{module}": names for module, names in _MODULES.items()} | {**_OTHERS}

ALLOWED_GLOBALS: frozenset[str] = frozenset(
    f"{module}.{name}" for module, names in _TABLE.items() for name in names.split()
)


def allowed_objects() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """What the listed torch.nn names stand for in this torch, as `torch.serialization.safe_globals` wants it.

    The other names are in torch's own list already; those that this torch does not have are left out.
    """
    found: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = []
    for module, names in _TABLE.items():
        if module in ("torch.nn.functional", "torch._C._nn") or module.startswith("torch.nn.modules."):
            there = vars(importlib.import_module(module))
            found += [(there[name], f"{module}.{name}") for name in names.split() if name in there]
    return found
