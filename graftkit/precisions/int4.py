"""The `int4` precision: large Linear weights in 4 bits, a scale for each block; arithmetic as the runtime has it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import onnx
from onnx import helper, numpy_helper

from graftkit.contracts import Feed, Lowered
from graftkit.core.errors import ExportError

_LEAST = 2048  # numbers of a weight; below, what its scales and its node take leaves nothing to gain
_BLOCK = 32  # numbers that share a scale


@dataclass(frozen=True)
class Int4:
    """onnxruntime's round-to-nearest in blocks, written with the standard's own `DequantizeLinear` of INT4 (opset 21).

    Convolutions and small weights stay in fp32. A runtime may multiply in blocks (onnxruntime does), or turn the
    weights back into fp32 when it loads the file.
    """

    name: ClassVar[str] = "int4"
    summary: ClassVar[str] = "large Linear weights in 4 bits, in blocks of 32"
    opset: ClassVar[int] = 21

    def lower(self, model: onnx.ModelProto, feeds: Sequence[Feed]) -> Iterator[Lowered]:
        from onnxruntime.quantization import QuantFormat
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        large = {tensor.name: tensor for tensor in copy.graph.initializer if _is_large(tensor)}
        _products(copy.graph, large)
        chosen = [node.name for node in copy.graph.node if node.op_type == "MatMul" and node.input[1] in large]
        if not chosen:
            raise ExportError(f"int4: no Linear layer has a weight of {_LEAST} numbers or more; choose fp16 or int8")
        others = [node.name for node in copy.graph.node if node.name not in set(chosen)]
        made = MatMulNBitsQuantizer(
            copy, block_size=_BLOCK, is_symmetric=True, nodes_to_exclude=others, quant_format=QuantFormat.QDQ
        )
        before = {node.output[0]: node for node in copy.graph.node}
        made.process()
        for node in made.model.model.graph.node:
            _restore(node, before.get(node.output[0]))
        yield Lowered(made.model.model)


def _restore(node: onnx.NodeProto, earlier: onnx.NodeProto | None) -> None:
    """In place, the name and the metadata that the quantizer takes away."""
    if earlier is not None:
        node.name = earlier.name
        del node.metadata_props[:]
        node.metadata_props.extend(earlier.metadata_props)


def _is_large(tensor: onnx.TensorProto) -> bool:
    return tensor.data_type == tensor.FLOAT and len(tensor.dims) == 2 and prod(tensor.dims) >= _LEAST


def _products(graph: onnx.GraphProto, large: dict[str, onnx.TensorProto]) -> None:
    """In place, each Gemm of a large weight as MatMul and Add, which is what is quantized; a weight is turned once."""
    nodes: list[onnx.NodeProto] = []
    readers = [name for node in graph.node for name in node.input]
    for node in graph.node:
        weight = large.get(node.input[1]) if node.op_type == "Gemm" else None
        if weight is None or readers.count(weight.name) > 1 or not _is_plain(node):
            nodes.append(node)
        else:
            nodes.extend(_product(node, weight))
    del graph.node[:]
    graph.node.extend(nodes)


def _is_plain(node: onnx.NodeProto) -> bool:
    """Whether it is x W + b and nothing else."""
    given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    return (given.get("alpha", 1.0), given.get("beta", 1.0), given.get("transA", 0)) == (1.0, 1.0, 0)


def _product(node: onnx.NodeProto, weight: onnx.TensorProto) -> list[onnx.NodeProto]:

    if any(attribute.name == "transB" and attribute.i for attribute in node.attribute):
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).T.copy(), weight.name))
    bias = list(node.input[2:3])
    product = f"{node.output[0]}.product" if bias else node.output[0]
    made = [helper.make_node("MatMul", list(node.input[:2]), [product], name=node.name)]
    if bias:
        made.append(helper.make_node("Add", [product, *bias], [node.output[0]], name=f"{node.name}_bias"))
    for each in made:
        each.metadata_props.extend(node.metadata_props)
    return made
