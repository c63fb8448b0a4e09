"""Folds a batch norm into what it reads: weights, strengths, and sums of them."""

from __future__ import annotations

from collections.abc import Callable, Set
from functools import partial
from math import prod

import numpy as np
import onnx_graphsurgeon as gs

from graftkit.folding.rewrites.tensors import held, nodes_of, rank
from graftkit.folding.surgeon import changed, peek

_Change = Callable[[], None]


def fold_batch_norm(graph: gs.Graph) -> int:
    """BN(conv + s * act) becomes conv' + s' * act, with y = (x - mean) / sqrt(var + eps) * scale + shift.

    (Jacob et al. 2018, section 3.2, for the convolution alone.)
    """
    outputs = held(graph)
    folded = 0
    for node in nodes_of(graph, "BatchNormalization"):
        if not all(isinstance(tensor, gs.Constant) for tensor in node.inputs[1:5]) or _is_training(node):
            continue
        scale, shift, mean, variance = (peek(tensor).astype(np.float64) for tensor in node.inputs[1:5])
        factor = scale / np.sqrt(variance + node.attrs.get("epsilon", 1e-5))
        changes = _absorb(outputs, node.inputs[0], factor, shift - mean * factor)
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


def _is_training(node: gs.Node) -> bool:
    return bool(node.attrs.get("training_mode", 0)) or len(node.outputs) != 1


def _absorb(outputs: Set[str], tensor: gs.Tensor, factor: np.ndarray, shift: np.ndarray) -> list[_Change] | None:
    """What has to change so that `tensor` becomes factor * tensor + shift for each channel; None if it cannot."""
    if len(tensor.inputs) != 1 or len(tensor.outputs) != 1 or tensor.name in outputs:
        return None  # somebody else reads it
    node = tensor.inputs[0]
    if node.op in ("Conv", "ConvTranspose", "Gemm"):
        return _absorb_weights(node, factor, shift)
    if node.op == "Add" and _is_plain_sum(node):
        first = _absorb(outputs, node.inputs[0], factor, shift)
        second = _absorb(outputs, node.inputs[1], factor, np.zeros_like(shift))
        return None if first is None or second is None else first + second
    if node.op == "Mul" and not np.any(shift):
        return _absorb_constant(node, factor)
    return None


def _is_plain_sum(node: gs.Node) -> bool:
    """Whether channels stand in one place in both terms, and neither is a constant."""
    ranks = {rank(tensor) for tensor in (*node.inputs, *node.outputs)}
    return len(ranks) == 1 and None not in ranks and not any(isinstance(t, gs.Constant) for t in node.inputs)


def _absorb_constant(node: gs.Node, factor: np.ndarray) -> list[_Change] | None:
    for position, constant in enumerate(node.inputs):
        if not isinstance(constant, gs.Constant) or tuple(constant.shape[:1]) != factor.shape:
            continue
        if any(size != 1 for size in constant.shape[1:]) or len(constant.shape) + 1 != rank(node.outputs[0]):
            continue  # it runs along another axis than the channels
        return [_replace(node, position, partial(np.multiply, factor.reshape(constant.shape)))]
    return None


def _absorb_weights(node: gs.Node, factor: np.ndarray, shift: np.ndarray) -> list[_Change] | None:
    weight = node.inputs[1]
    bias = node.inputs[2] if len(node.inputs) > 2 and not node.inputs[2].is_empty() else None
    plain = node.op != "Gemm" or (node.attrs.get("alpha", 1.0) == 1.0 and node.attrs.get("beta", 1.0) == 1.0)
    if not isinstance(weight, gs.Constant) or not (bias is None or isinstance(bias, gs.Constant)) or not plain:
        return None
    if node.op == "ConvTranspose" and node.attrs.get("group", 1) != 1:
        return None
    axis = 0 if node.op == "Conv" or node.attrs.get("transB", 0) else 1
    if weight.shape[axis] != len(factor) or (bias is not None and prod(bias.shape) != len(factor)):
        return None
    shape = [1] * len(weight.shape)
    shape[axis] = -1
    scale = _replace(node, 1, partial(np.multiply, factor.reshape(shape)))
    if bias is not None:
        return [scale, _replace(node, 2, lambda numbers: numbers * factor + shift)]
    new = gs.Constant(f"{_own_name(node, weight)}.bias", shift.astype(weight.dtype))
    return [scale, lambda: _set_bias(node, new)]


def _set_bias(node: gs.Node, bias: gs.Constant) -> None:
    if len(node.inputs) > 2:
        node.inputs[2] = bias
    else:
        node.inputs.append(bias)


def _own_name(node: gs.Node, constant: gs.Constant) -> str:
    """A constant's name, made the node's own where another node reads it too."""
    return f"{constant.name}.{node.outputs[0].name}" if len(constant.outputs) > 1 else str(constant.name)


def _replace(node: gs.Node, position: int, change: Callable[[np.ndarray], np.ndarray]) -> _Change:
    def replace() -> None:
        constant = node.inputs[position]
        node.inputs[position] = gs.Constant(_own_name(node, constant), changed(constant, change))

    return replace
