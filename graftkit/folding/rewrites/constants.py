"""Computes, once and for all, what depends on constants alone."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter

from graftkit.folding.evaluate import evaluate
from graftkit.folding.rewrites.tensors import held, nbytes, nodes_of
from graftkit.folding.surgeon import kept
from graftkit.folding.written import LARGE, Load

_NEVER = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"}  # quantisation is meant to be seen
    | {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli"}
)
_MAKERS = frozenset({"ConstantOfShape", "EyeLike", "Expand", "OneHot", "Pad", "Range", "Resize", "Tile"})
_STANDARD = (None, "", "ai.onnx")


def fold_constants(graph: gs.Graph) -> int:
    """F(constants) becomes a constant, unless the file would grow by it.

    Of a large weight nothing is computed before it is written, and nothing at all where another node needs the weight
    as it is, such as a table of embeddings that also serves as the last layer.
    """
    outputs = held(graph)
    folded = 0
    for node in nodes_of(graph):
        if _foldable(node) and not any(tensor.name in outputs for tensor in node.outputs):
            folded += _constant_node(node) or _fold(node, graph.opset)
    return folded


def _foldable(node: gs.Node) -> bool:
    if node.op in _NEVER or node.domain not in _STANDARD:
        return False
    if any(isinstance(value, gs.Graph | gs.Node.AttributeRef) for value in node.attrs.values()):
        return False
    return _reads_constants(node) and not _grows(node) and all(_spared(tensor) for tensor in _constants(node))


def _constants(node: gs.Node) -> list[gs.Constant]:
    return [tensor for tensor in node.inputs if isinstance(tensor, gs.Constant)]


def _reads_constants(node: gs.Node) -> bool:
    return all(isinstance(tensor, gs.Constant) or tensor.is_empty() for tensor in node.inputs)


def _grows(node: gs.Node) -> bool:
    """Whether what comes out is large, and larger than what goes in; of a size that is not known it may be."""
    given = sum(tensor._values.nbytes for tensor in _constants(node))
    for tensor in node.outputs:
        size = nbytes(tensor)
        if size is None and (node.op in _MAKERS or given > LARGE):
            return True
        if size is not None and size > max(LARGE, given):
            return True
    return False


def _spared(tensor: gs.Constant) -> bool:
    """Whether no copy of a large constant would have to stay beside what is made of it."""
    return tensor._values.nbytes <= LARGE or all(_reads_constants(reader) for reader in tensor.outputs)


def _constant_node(node: gs.Node) -> int:
    """A Constant node's value, without computing anything. Returns whether it was one."""
    value = node.attrs.get("value")
    if node.op != "Constant" or not isinstance(value, gs.Constant):
        return 0
    node.outputs[0].to_constant(value._values)
    node.outputs.clear()
    return 1


def _fold(node: gs.Node, opset: int) -> int:
    proto = OnnxExporter.export_node(node)
    loads = [_loader(tensor) for tensor in node.inputs]
    found = evaluate(proto, opset, [load() if load else None for load in loads])
    if found is None or len(found) != sum(not tensor.is_empty() for tensor in node.outputs):
        return 0
    places = [place for place, tensor in enumerate(node.outputs) if not tensor.is_empty()]
    for index, place in enumerate(places):
        node.outputs[place].to_constant(_values(found[index], proto, opset, loads, index))
    node.inputs.clear()
    node.outputs.clear()
    return 1


def _loader(tensor: gs.Tensor) -> Load | None:
    if tensor.is_empty():
        return None
    values = tensor._values
    return values.load if hasattr(values, "load") else lambda: values


def _values(found: np.ndarray, proto: onnx.NodeProto, opset: int, loads: list[Load | None], index: int) -> object:
    """A small result as it is; a large one is computed again when it is needed."""
    if found.nbytes <= LARGE:
        return np.array(found)

    def again() -> np.ndarray:
        results = evaluate(proto, opset, [load() if load else None for load in loads])
        assert results is not None
        return results[index]

    return kept(found, again)
