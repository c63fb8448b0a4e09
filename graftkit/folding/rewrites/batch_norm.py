"""Folds a batch norm into what it reads: weights, strengths, and sums of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_graphsurgeon as gs

from graftkit.folding.rewrites.silent import is_output

_Change = Callable[[], None]


def fold_batch_norm(graph: gs.Graph) -> int:
    """BN(conv + s * act) becomes conv' + s' * act, with y = (x - mean) / sqrt(var + eps) * scale + shift.

    (Jacob et al. 2018, section 3.2, for the convolution alone.)
    """
    folded = 0
    for node in [n for n in graph.nodes if n.op == "BatchNormalization"]:
        if not all(isinstance(tensor, gs.Constant) for tensor in node.inputs[1:5]):
            continue
        scale, shift, mean, variance = (tensor.values.astype(np.float64) for tensor in node.inputs[1:5])
        factor = scale / np.sqrt(variance + node.attrs.get("epsilon", 1e-5))
        changes = _absorb(graph, node.inputs[0], factor, shift - mean * factor)
        if changes is None:
            continue
        for change in changes:
            change()
        source = node.inputs[0]
        kept = node.outputs[0]
        producer = source.inputs[0]
        producer.outputs[producer.outputs.index(source)] = kept
        node.outputs.clear()
        folded += 1
    return folded


def _absorb(graph: gs.Graph, tensor: gs.Tensor, factor: np.ndarray, shift: np.ndarray) -> list[_Change] | None:
    """What has to change so that `tensor` becomes factor * tensor + shift for each channel; None if it cannot."""
    if not tensor.inputs or len(tensor.outputs) != 1 or is_output(graph, tensor):
        return None  # somebody else reads it
    node = tensor.inputs[0]
    if node.op in ("Conv", "ConvTranspose", "Gemm"):
        return _absorb_weights(node, factor, shift)
    if node.op == "Add" and all(_rank(t) == _rank(tensor) and not isinstance(t, gs.Constant) for t in node.inputs):
        first = _absorb(graph, node.inputs[0], factor, shift)
        second = _absorb(graph, node.inputs[1], factor, np.zeros_like(shift))
        return None if first is None or second is None else first + second
    if node.op == "Mul" and not np.any(shift):
        return _absorb_constant(node, factor)
    return None


def _absorb_constant(node: gs.Node, factor: np.ndarray) -> list[_Change] | None:
    for position, constant in enumerate(node.inputs):
        if not isinstance(constant, gs.Constant) or constant.values.shape[:1] != factor.shape:
            continue
        if any(size != 1 for size in constant.values.shape[1:]) or constant.values.ndim + 1 != _rank(node.outputs[0]):
            continue  # it runs along another axis than the channels
        values = (constant.values.reshape(-1) * factor).reshape(constant.values.shape)
        return [_replace(node, position, constant, values)]
    return None


def _rank(tensor: gs.Tensor) -> int | None:
    return None if tensor.shape is None else len(tensor.shape)


def _absorb_weights(node: gs.Node, factor: np.ndarray, shift: np.ndarray) -> list[_Change] | None:
    weight = node.inputs[1]
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    plain = node.op != "Gemm" or (node.attrs.get("alpha", 1.0) == 1.0 and node.attrs.get("beta", 1.0) == 1.0)
    if not isinstance(weight, gs.Constant) or not (bias is None or isinstance(bias, gs.Constant)) or not plain:
        return None
    if node.op == "ConvTranspose" and node.attrs.get("group", 1) != 1:
        return None
    axis = 0 if node.op == "Conv" or node.attrs.get("transB", 0) else 1
    shape = [1] * weight.values.ndim
    shape[axis] = -1
    old = np.zeros_like(factor) if bias is None else bias.values.astype(np.float64)
    changes = [_replace(node, 1, weight, weight.values * factor.reshape(shape))]
    new_bias = gs.Constant(f"{_own_name(node, weight)}.bias", (old * factor + shift).astype(weight.values.dtype))

    def set_bias() -> None:
        if bias is None:
            node.inputs.append(new_bias)
        else:
            _replace(node, 2, bias, new_bias.values)()

    return [*changes, set_bias]


def _own_name(node: gs.Node, constant: gs.Constant) -> str:
    """A constant's name, made the node's own where another node reads it too."""
    return f"{constant.name}.{node.outputs[0].name}" if len(constant.outputs) > 1 else str(constant.name)


def _replace(node: gs.Node, position: int, constant: gs.Constant, values: np.ndarray) -> _Change:
    def change() -> None:
        node.inputs[position] = gs.Constant(_own_name(node, constant), values.astype(constant.values.dtype))

    return change
