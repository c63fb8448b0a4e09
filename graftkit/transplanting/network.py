"""An ONNX graph as the matching sees it: what is constant, who reads whom, and the layers with constant weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx
from onnx import numpy_helper

from graftkit.folding.evaluate import evaluate
from graftkit.folding.ports import graphs_of

_STANDARD = ("", "ai.onnx")
_NEVER = frozenset({"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial"})
LINEAR, CONV, TRANSPOSED = "linear", "conv", "conv_transpose"
_KINDS = {"Conv": CONV, "ConvTranspose": TRANSPOSED, "Gemm": LINEAR, "MatMul": LINEAR}


@dataclass(frozen=True)
class Use:
    """Where a node reads a constant."""

    node: int
    place: int
    name: str


@dataclass(frozen=True)
class Layer:
    """A Conv, ConvTranspose, Gemm or MatMul with a constant weight, and what adds its bias.

    Attributes:
        kind: linear, conv or conv_transpose.
        turned: whether the weight lies as [inputs, outputs].
        weight, bias: where they are read; a bias may be added by a node of its own.
        input: what the layer reads.
        output: what it says, bias included.
        norm: the batch norm that alone reads it.
    """

    kind: str
    turned: bool
    weight: Use
    bias: Use | None
    input: str
    output: str
    norm: int | None

    @property
    def node(self) -> int:
        """The place of the node that has the weight."""
        return self.weight.node

    @property
    def last(self) -> int:
        """The place of the node that gives the output."""
        return self.bias.node if self.bias else self.weight.node

    def canonical(self, weight: np.ndarray) -> np.ndarray:
        """The weight as torch has it."""
        return weight.T if self.turned else weight

    @property
    def axis(self) -> int:
        """Along which axis of the canonical weight the neurons lie."""
        return 1 if self.kind == TRANSPOSED else 0


class Network:
    """A graph with the numbers of its constants.

    Args:
        graph: nodes in topological order.
        stored: the numbers of initializers and Constant nodes by name.
        opset: of the standard domain.
    """

    def __init__(self, graph: onnx.GraphProto, stored: Mapping[str, np.ndarray], opset: int):
        self.graph, self.stored, self.opset = graph, stored, opset
        self.nodes: Sequence[onnx.NodeProto] = graph.node
        self.reads = [read_by(node) for node in self.nodes]
        self.made = {name: index for index, node in enumerate(self.nodes) for name in node.output if name}
        self.readers: dict[str, list[int]] = {}
        for index, names in enumerate(self.reads):
            for name in names:
                self.readers.setdefault(name, []).append(index)
        self.given = {value.name for value in graph.output}
        self.values, self.sources = settled(graph, stored, opset)

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The layers, in the order of the graph."""
        found = (self._layer(index, node) for index, node in enumerate(self.nodes))
        return tuple(layer for layer in found if layer is not None)

    def uses(self) -> Iterator[Use]:
        """Where a node that computes something of the data reads constant numbers."""
        for index, node in enumerate(self.nodes):
            if all(name in self.values for name in self.reads[index]):
                continue
            for place, name in enumerate(node.input):
                if name in self.values and self.values[name].dtype.kind == "f":
                    yield Use(index, place, name)

    def only_reader(self, name: str) -> int | None:
        """The place of the one node that reads a tensor, which the graph does not give."""
        readers = self.readers.get(name, [])
        return readers[0] if len(readers) == 1 and name not in self.given else None

    def _layer(self, index: int, node: onnx.NodeProto) -> Layer | None:
        kind = _KINDS.get(node.op_type) if node.domain in _STANDARD else None
        weight = self.values.get(node.input[1]) if len(node.input) > 1 else None
        if kind is None or weight is None or node.input[0] in self.values or weight.dtype.kind != "f":
            return None
        if (kind == LINEAR and weight.ndim != 2) or attribute(node, "transA", 0):
            return None
        if attribute(node, "alpha", 1.0) != 1.0 or attribute(node, "beta", 1.0) != 1.0:
            return None
        turned = kind == LINEAR and not attribute(node, "transB", 0)
        neurons = weight.shape[1] if turned or kind == TRANSPOSED else weight.shape[0]
        neurons *= attribute(node, "group", 1) if kind == TRANSPOSED else 1
        bias = self._bias(index, node, int(neurons))
        output = str(self.nodes[bias.node if bias else index].output[0])
        weight_use = Use(index, 1, node.input[1])
        return Layer(kind, turned, weight_use, bias, node.input[0], output, self._norm(output))

    def _norm(self, output: str) -> int | None:
        """The batch norm that alone reads a layer, maybe behind transposes that undo each other."""
        order: tuple[int, ...] = ()
        name, reader = output, self.only_reader(output)
        while reader is not None and self.nodes[reader].op_type in ("Identity", "Transpose"):
            turn = numbers(self.nodes[reader], "perm")
            order = tuple((order or tuple(range(len(turn))))[axis] for axis in turn) or order
            name = str(self.nodes[reader].output[0])
            reader = self.only_reader(name)
        found = reader is not None and order == tuple(sorted(order)) and self._normalises(reader, name)
        return reader if found else None

    def _bias(self, index: int, node: onnx.NodeProto, neurons: int) -> Use | None:
        if len(node.input) > 2 and node.input[2]:
            return Use(index, 2, node.input[2]) if node.input[2] in self.values else None
        reader = self.only_reader(node.output[0])
        if reader is None or self.nodes[reader].op_type != "Add":
            return None
        for place, name in enumerate(self.nodes[reader].input):
            if name in self.values and self._one_a_neuron(self.values[name].shape, node, neurons):
                return Use(reader, place, name)
        return None

    def _one_a_neuron(self, shape: tuple[int, ...], node: onnx.NodeProto, neurons: int) -> bool:
        """Whether a constant that is added has one number for each neuron, where these lie."""
        if node.op_type in ("Gemm", "MatMul"):
            return bool(shape) and shape[-1] == neurons == int(np.prod(shape))
        inner = self.values[node.input[1]].ndim - 2
        return tuple(shape) in ((neurons, *(1,) * inner), (1, neurons, *(1,) * inner))

    def _normalises(self, reader: int, name: str) -> bool:
        node = self.nodes[reader]
        return (
            node.op_type == "BatchNormalization"
            and node.input[0] == name
            and all(other in self.values for other in node.input[1:5])
        )


def settled(
    graph: onnx.GraphProto, stored: Mapping[str, np.ndarray], opset: int
) -> tuple[dict[str, np.ndarray], dict[str, frozenset[str]]]:
    """The numbers of all that depends on constants and fixed sizes alone, and of which stored ones each is made."""
    sizes = _fixed_sizes(graph)
    values = {**sizes, **stored}
    sources = {**dict.fromkeys(sizes, frozenset[str]()), **{name: frozenset({name}) for name in stored}}
    for node in graph.node:
        names = [name for name in node.input if name]
        if node.op_type in _NEVER or node.domain not in _STANDARD or any(name not in values for name in names):
            continue
        if any(name in values for name in node.output) or _has_graphs(node):
            continue
        found = evaluate(node, opset, [values[name] if name else None for name in node.input])
        for name, value in zip([name for name in node.output if name], found or (), strict=False):
            values[name] = value
            sources[name] = frozenset().union(*(sources[each] for each in names))
    return values, sources


def _fixed_sizes(graph: onnx.GraphProto) -> dict[str, np.ndarray]:
    """What Shape nodes give that ask for sizes which the graph tells."""
    shapes = {value.name: value.type.tensor_type.shape.dim for value in (*graph.input, *graph.value_info)}
    found = {}
    for node in graph.node:
        if node.op_type == "Shape" and node.domain in _STANDARD and node.input[0] in shapes:
            dims = shapes[node.input[0]]
            first, last = int(attribute(node, "start", 0)), int(attribute(node, "end", len(dims)))
            sizes = [dim.dim_value for dim in list(dims)[first:last]]
            if sizes and all(sizes):
                found[node.output[0]] = np.array(sizes, np.int64)
    return found


def stored_numbers(graph: onnx.GraphProto) -> dict[str, np.ndarray]:
    """Initializers and Constant nodes that hold a tensor, by name; their numbers have to be in the message."""
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            found[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return found


def read_by(node: onnx.NodeProto) -> tuple[str, ...]:
    """What a node reads, and the graphs inside it."""
    names = dict.fromkeys(name for name in node.input if name)
    for attr in node.attribute:
        for inner in (attr.g, *attr.graphs):
            for graph in graphs_of(inner):
                names.update((name, None) for each in graph.node for name in each.input if name)
                names.update((value.name, None) for value in graph.output)
    return tuple(names)


def attribute(node: onnx.NodeProto, name: str, default: int | float) -> int | float:
    """A number among a node's attributes."""
    for attr in node.attribute:
        if attr.name == name:
            return float(attr.f) if attr.type == onnx.AttributeProto.FLOAT else int(attr.i)
    return default


def numbers(node: onnx.NodeProto, name: str) -> tuple[int, ...]:
    """Whole numbers among a node's attributes, none where they are not there."""
    return next((tuple(attr.ints) for attr in node.attribute if attr.name == name), ())


def _has_graphs(node: onnx.NodeProto) -> bool:
    return any(attr.HasField("g") or attr.graphs for attr in node.attribute)
