"""One model of two: the network without its dendrites, and with them in an ONNX `If`, for the rows that need them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from graftkit.core.errors import ExportError
from graftkit.folding.export import check_standard
from graftkit.folding.ports import graphs_of

ALL = 2.0  # a threshold that no confidence reaches, whatever a runtime rounds
_DRAWS = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"}
)
_AXES_ARE_AN_INPUT = 18  # since this opset


def gated(base: ModelProto, grafted: ModelProto, threshold: float) -> ModelProto:
    """A model that gives the base's answer where that is sure, row by row, and the grafted model's elsewhere.

    A row is sure where the largest softmax of the base's answer is at least the threshold; one whose answer is no
    number is not. The grafted model runs where some row is not sure. What both compute alike is computed once, outside
    of the `If`, and weights that are equal are stored once; what the grafted model alone computes keeps its marks.

    Args:
        base, grafted: whole models with the same inputs and one output, [rows, classes], of the same name.
        threshold: 0 gives the base's answers, `ALL` the grafted model's.

    Raises ExportError where the models do not fit together, or the grafted one computes nothing of its own.
    """
    _check_alike(base, grafted)
    (port,) = grafted.graph.output
    merged = _Merged(_names(base.graph) | {port.name for port in grafted.graph.input})
    outer = merged.outer(base.graph, port.name)
    answer = merged.names_outside[port.name]
    branch = merged.branch(grafted.graph)
    if not branch.node:
        raise ExportError("the network computes the same without its dendrites: there is nothing to gate")
    _Gate(outer, merged, answer, port, _opset(grafted)).put(branch, threshold)
    model = ModelProto()
    model.CopyFrom(grafted)
    model.graph.CopyFrom(outer)
    check_standard(model)
    return model


@dataclass(eq=False)
class _Merged:
    """How values of both models are called in the one that is made.

    Attributes:
        taken: names of values and nodes that are there.
        names_outside: by the base's names.
        names: by the grafted model's names.
        tensors: the constants outside, by type, sizes and numbers.
        given: what nodes outside give, by what they compute.
    """

    taken: set[str]
    names_outside: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    tensors: dict[Hashable, str] = field(default_factory=dict)
    given: dict[Hashable, tuple[str, ...]] = field(default_factory=dict)

    def fresh(self, name: str) -> str:
        """A name that nothing has yet, as like this one as can be."""
        found, number = name, 0
        while found in self.taken:
            number += 1
            found = f"{name}_{number}"
        self.taken.add(found)
        return found

    def outer(self, graph: GraphProto, output: str) -> GraphProto:
        """The base, whose output has another name: that name is for what the gate gives."""
        made = GraphProto()
        made.CopyFrom(graph)
        del made.initializer[:]
        for tensor in graph.initializer:
            self.names_outside[tensor.name] = self.tensors.setdefault(_numbers(tensor), tensor.name)
            if self.names_outside[tensor.name] == tensor.name:
                made.initializer.append(tensor)
        self.names_outside[output] = self.fresh(f"{output}_without_dendrites")
        for node in made.node:
            _rename(node, self.names_outside)
            key = _key(node)
            if key is not None:
                self.given.setdefault(key, tuple(node.output))
        for value in made.value_info:
            value.name = self.names_outside.get(value.name, value.name)
        return made

    def branch(self, graph: GraphProto) -> GraphProto:
        """What of the grafted model is not there yet."""
        made = GraphProto(name="with_dendrites")
        for tensor in graph.initializer:
            known = self.tensors.get(_numbers(tensor))
            self.names[tensor.name] = known or self.fresh(tensor.name)
            if known is None:
                made.initializer.add().CopyFrom(tensor)
                made.initializer[-1].name = self.names[tensor.name]
        for node in graph.node:
            self._take(made, node)
        return made

    def _take(self, made: GraphProto, original: NodeProto) -> None:
        node = NodeProto()
        node.CopyFrom(original)
        for inner in _inside(node):
            self.names |= {name: self.fresh(name) for name in sorted(_defined(inner)) if name not in self.names}
        _rename(node, self.names)
        known = self.given.get(key) if (key := _key(node)) is not None else None
        if known is not None:
            self.names |= {name: outside for name, outside in zip(original.output, known, strict=True) if name}
            return
        self.names |= {name: self.fresh(name) for name in original.output if name}
        node.output[:] = [self.names.get(name, name) for name in original.output]  # inputs have their names already
        node.name = self.fresh(f"gate/{original.name}")
        made.node.append(node)


@dataclass(frozen=True, eq=False)
class _Gate:
    """What is put behind the base, in place.

    Attributes:
        graph: the base, with the answer `answer`.
        port: the output that the gate gives.
        opset: of the file.
    """

    graph: GraphProto
    merged: _Merged
    answer: str
    port: onnx.ValueInfoProto
    opset: int

    def put(self, branch: GraphProto, threshold: float) -> None:
        """Which rows are sure, and the `If` that runs what the others need."""
        sure = self._node("GreaterOrEqual", [self._confidence(), self._threshold(threshold)])  # no number is not sure
        # a minimum of the confidences themselves would be anything where one is no number
        numbers = self._node("Cast", [sure], to=TensorProto.FLOAT)
        least = self._node("ReduceMin", [numbers], keepdims=0)
        every = self._node("Cast", [least], to=TensorProto.BOOL)
        chosen, passed = (self.merged.fresh(f"{self.port.name}_{how}") for how in ("chosen", "passed"))
        own = self.merged.names[self.port.name]
        branch.node.append(self._made("Where", [sure, self.answer, own], chosen))
        branch.output.append(self._port(chosen))
        handing = self._made("Identity", [self.answer], passed)
        without = helper.make_graph([handing], "without_dendrites", [], [self._port(passed)])
        branches = {"then_branch": without, "else_branch": branch}
        self.graph.node.append(self._made("If", [every], self.port.name, **branches))

    def _confidence(self) -> str:
        """The largest chance that the base gives to a class, [rows, 1]."""
        chances = self._node("Softmax", [self.answer], axis=1)
        if self.opset < _AXES_ARE_AN_INPUT:
            return self._node("ReduceMax", [chances], axes=[1], keepdims=1)
        return self._node("ReduceMax", [chances, self._constant("axes", np.array([1], np.int64))], keepdims=1)

    def _threshold(self, threshold: float) -> str:
        kind = helper.tensor_dtype_to_np_dtype(self.port.type.tensor_type.elem_type)
        return self._constant("threshold", np.asarray(threshold, kind))

    def _constant(self, name: str, values: np.ndarray) -> str:
        self.graph.initializer.append(numpy_helper.from_array(values, self.merged.fresh(f"gate.{name}")))
        return str(self.graph.initializer[-1].name)

    def _node(self, operator: str, inputs: Sequence[str], **settings: Any) -> str:
        made = self._made(operator, inputs, self.merged.fresh(f"gate.{operator.lower()}"), **settings)
        self.graph.node.append(made)
        return str(made.output[0])

    def _made(self, operator: str, inputs: Sequence[str], output: str, **settings: Any) -> NodeProto:
        return helper.make_node(operator, inputs, [output], self.merged.fresh(f"gate/{operator}"), **settings)

    def _port(self, name: str) -> onnx.ValueInfoProto:
        found = onnx.ValueInfoProto()
        found.CopyFrom(self.port)
        found.name = name
        return found


def _check_alike(base: ModelProto, grafted: ModelProto) -> None:
    if len(grafted.graph.output) != 1 or len(base.graph.output) != 1:
        raise ExportError(f"a gate hands on one output, and the file has {len(grafted.graph.output)}")
    ports = [[value.name for value in (*model.graph.input, *model.graph.output)] for model in (base, grafted)]
    if ports[0] != ports[1] or _opset(base) != _opset(grafted):
        raise ExportError("the network without its dendrites has other inputs, outputs or operators than with them")


def _opset(model: ModelProto) -> int:
    return next((int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)


def _numbers(tensor: TensorProto) -> Hashable:
    """What makes two constants alike."""
    return tensor.data_type, tuple(tensor.dims), numpy_helper.to_array(tensor).tobytes()


def _key(node: NodeProto) -> Hashable | None:
    """What makes two nodes alike; None for those that draw at random, or have graphs inside them."""
    if node.op_type in _DRAWS or any(True for _ in _inside(node)):
        return None
    settings = tuple(sorted(attribute.SerializeToString() for attribute in node.attribute))
    return node.op_type, node.domain, settings, tuple(node.input), tuple(bool(name) for name in node.output)


def _inside(node: NodeProto) -> list[GraphProto]:
    """The graphs in a node's attributes, at any depth."""
    return list(graphs_of(GraphProto(node=[node])))[1:]


def _rename(node: NodeProto, names: Mapping[str, str]) -> None:
    """In place, in the graphs within it, too."""
    holders = [attribute.g for attribute in node.attribute if attribute.type == onnx.AttributeProto.GRAPH]
    holders += [graph for attribute in node.attribute for graph in attribute.graphs]
    node.input[:] = [names.get(name, name) for name in node.input]
    node.output[:] = [names.get(name, name) for name in node.output]
    for graph in holders:
        for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
            value.name = names.get(value.name, value.name)
        for inner in graph.node:
            _rename(inner, names)


def _defined(graph: GraphProto) -> set[str]:
    """The values that a graph itself makes or keeps."""
    kept = {value.name for value in (*graph.input, *graph.initializer)}
    return kept | {name for node in graph.node for name in node.output if name}


def _names(graph: GraphProto) -> set[str]:
    """Of all values and nodes, at any depth."""
    graphs = list(graphs_of(graph))
    return {name for each in graphs for name in _defined(each)} | {node.name for each in graphs for node in each.node}
