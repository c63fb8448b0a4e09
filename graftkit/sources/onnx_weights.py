"""Which tensors of an ONNX file are weights, and how a module holds them."""

from __future__ import annotations

from collections.abc import Mapping

from onnx import NodeProto
from torch import Tensor, nn

from graftkit.sources.onnx_tensors import Tensors

_LARGE = 1e4  # what no weight is: a mask's stand-in for minus infinity
_LEARNING = frozenset({"weight", "bias", "scale", "weight_left"})
_STATISTICS = frozenset({"running_mean", "running_var"})  # kept up to date, not trained


def weighs(role: str, value: Tensor) -> bool:
    """Whether an operator takes the tensor as weights or statistics, by the role that it has there."""
    return (role in _LEARNING or role in _STATISTICS) and value.is_floating_point()


def learns(role: str, value: Tensor, *, varied: bool = False) -> bool:
    """Whether the tensor is trained: weights of which none stands in for infinity; `varied`: and not all alike."""
    if role not in _LEARNING or not value.is_floating_point() or not value.numel():
        return False
    low, high = (float(number) for number in value.aminmax())
    return low > -_LARGE and high < _LARGE and not (varied and low == high)


def register(module: nn.Module, name: str, value: nn.Parameter | Tensor) -> None:
    """Make it a parameter or a buffer of the module."""
    if isinstance(value, nn.Parameter):
        module.register_parameter(name, value)
    else:
        module.register_buffer(name, value)


def is_linear(node: NodeProto, tensors: Tensors) -> bool:
    """Whether the node is a product with a held matrix, and at most a held bias: a Linear call."""
    if node.op_type == "Linear":
        return True
    if node.op_type not in ("MatMul", "Gemm") or node.input[1] not in tensors or node.input[0] in tensors:
        return False
    size = tensors.size(node.input[1])
    if len(size) != 2 or not tensors.floats(node.input[1]):
        return False
    return node.op_type == "MatMul" or _is_plain_gemm(node, tensors, size)


def is_transposed(node: NodeProto) -> bool:
    """Whether the node reads its weight transposed, as torch keeps it."""
    return bool(_numbers(node).get("transB"))


def _is_plain_gemm(node: NodeProto, tensors: Tensors, size: tuple[int, ...]) -> bool:
    told = _numbers(node)
    if told.get("alpha", 1.0) != 1.0 or told.get("beta", 1.0) != 1.0 or told.get("transA"):
        return False
    bias = node.input[2] if len(node.input) > 2 else ""
    return not bias or (bias in tensors and tensors.size(bias) == (size[0 if is_transposed(node) else 1],))


def _numbers(node: NodeProto) -> Mapping[str, float]:
    return {a.name: a.f if a.name in ("alpha", "beta") else a.i for a in node.attribute}
