"""Edits a file's message: other numbers, further inputs, further nodes; the rest stays byte for byte what it was."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from graftkit.core.errors import ExportError
from graftkit.folding.evaluate import evaluate
from graftkit.folding.ports import graphs_of
from graftkit.transplanting.branches import fresh
from graftkit.transplanting.network import Network
from graftkit.transplanting.weights import Missing, Update

_MOVES = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})


class Edited:
    """A copy of a model, to be changed, with what was changed in it.

    Attributes:
        model: the copy.
        tensors, nodes: the names of initializers, and the places of the given nodes, that are others now.
        added: how many nodes are new.
    """

    def __init__(self, model: onnx.ModelProto, network: Network):
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        self.network = network
        self.tensors: set[str] = set()
        self.nodes: set[int] = set()
        self.added = 0
        self.taken = _names(model)
        self._behind: dict[int, list[onnx.NodeProto]] = {}
        self._kept = list(self.model.graph.node)
        self._hidden = {n for node, names in zip(network.nodes, network.reads, strict=True) for n in names} - {
            n for node in network.nodes for n in node.input
        } | network.given

    def update(self, updates: Iterable[Update]) -> None:
        """Put new numbers in: where all that read a stored tensor agree into it, else into one of their own."""
        wanted: dict[str, list[tuple[Update, np.ndarray]]] = {}
        for update in updates:
            if update.use.node < 0:
                self._store(update.use.name, update.value)
                continue
            if np.array_equal(update.value, self.network.values[update.use.name]):
                continue
            stored = _moved_back(self.network, update.use.name, update.value)
            if stored is None:
                self._apart(update)
            else:
                wanted.setdefault(stored[0], []).append((update, stored[1]))
        for name, each in wanted.items():
            self._settle(name, each)

    def bias(self, missing: Missing) -> None:
        """Give a node the bias that it has not got."""
        node = self._kept[missing.node]
        name = self._hold(f"{node.output[0]}.bias", missing.value, self.network.values[node.input[1]].dtype)
        if node.op_type == "MatMul":
            output = node.output[0]
            inner = self.divert(missing.node)
            add = helper.make_node("Add", [inner, name], [output], fresh(f"{name}/Add", self.taken))
            self.insert(missing.node, [add])
            return
        node.input[:] = [*node.input[:2], name]
        self.nodes.add(missing.node)

    def divert(self, place: int) -> str:
        """Let a node's first output have a new name, so that what stands behind it can take the old one."""
        node = self._kept[place]
        behind = self._behind.get(place)
        if behind:  # a bias was added: that gives the name
            last = behind[-1]
            last.output[0] = fresh(f"{last.output[0]}_before_dendrites", self.taken)
            return str(last.output[0])
        node.output[0] = fresh(f"{node.output[0]}_before_dendrites", self.taken)
        self.nodes.add(place)
        return str(node.output[0])

    def insert(self, place: int, nodes: Sequence[onnx.NodeProto], tensors: Sequence[onnx.TensorProto] = ()) -> None:
        """Put nodes behind a given one."""
        self._behind.setdefault(place, []).extend(nodes)
        self.model.graph.initializer.extend(tensors)
        self.added += len(nodes)

    def finish(self) -> onnx.ModelProto:
        """The changed model."""
        nodes = []
        for place, node in enumerate(self._kept):
            nodes += [node, *self._behind.get(place, ())]
        copies = [_copied(node) for node in nodes]
        del self.model.graph.node[:]
        self.model.graph.node.extend(copies)
        return self.model

    def _settle(self, name: str, updates: list[tuple[Update, np.ndarray]]) -> None:
        told = {(update.use.node, update.use.place) for update, _ in updates}
        readers = {(use.node, use.place) for use in self.network.uses() if name in self.network.sources[use.name]}
        first = updates[0][1]
        if readers <= told and name not in self._hidden and all(np.array_equal(first, v) for _, v in updates):
            self._store(name, first)
            return
        for update, _ in updates:
            self._apart(update)

    def _apart(self, update: Update) -> None:
        use = update.use
        name = self._hold(f"{use.name}_trained", update.value, self.network.values[use.name].dtype)
        self._kept[use.node].input[use.place] = name
        self.nodes.add(use.node)

    def _hold(self, name: str, value: np.ndarray, dtype: np.dtype) -> str:
        told = fresh(name, self.taken)
        self.model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value.astype(dtype)), told))
        return told

    def _store(self, name: str, value: np.ndarray) -> None:
        for tensor in self.model.graph.initializer:
            if tensor.name == name:
                _fill(tensor, value)
                self.tensors.add(name)
                return
        place = self.network.made[name]
        _fill(self._kept[place].attribute[0].t, value)
        self.nodes.add(place)


def check_untouched(before: onnx.ModelProto, after: onnx.ModelProto, edited: Edited) -> None:
    """Raise ExportError where anything but what was reported as changed differs by a byte."""
    outside = [_without(model) for model in (before, after)]
    kept = {tensor.name: tensor.SerializeToString() for tensor in after.graph.initializer}
    wrong = [t.name for t in before.graph.initializer if t.name not in edited.tensors
             and kept.get(t.name) != t.SerializeToString()]  # fmt: skip
    there = iter([node.SerializeToString() for node in after.graph.node])
    for place, node in enumerate(before.graph.node):
        if place not in edited.nodes and node.SerializeToString() not in there:
            wrong.append(node.name or node.output[0])
    if wrong or outside[0] != outside[1]:
        raise ExportError(f"the new file would differ where it must not: {', '.join(wrong[:3]) or 'its header'}")


def _without(model: onnx.ModelProto) -> bytes:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.node[:]
    del copy.graph.initializer[:]
    return bytes(copy.SerializeToString(deterministic=True))


def _moved_back(network: Network, name: str, value: np.ndarray) -> tuple[str, np.ndarray] | None:
    """The stored tensor that a constant is a view of, and what has to be stored for it to become `value`."""
    found = _places(network, name)
    if found is None:
        return None
    stored, places = found
    now = network.stored[stored]
    new = np.empty(now.size, now.dtype)
    new[places.reshape(-1)] = value.reshape(-1).astype(now.dtype)
    return stored, new.reshape(now.shape)


def _places(network: Network, name: str) -> tuple[str, np.ndarray] | None:
    """Where each number of a constant comes from in the stored tensor; None where it was not just moved."""
    if name in network.stored:
        shape = network.stored[name].shape
        return name, np.arange(int(np.prod(shape))).reshape(shape)
    node = network.nodes[network.made[name]]
    before = _places(network, node.input[0]) if node.op_type in _MOVES else None
    if before is None:
        return None
    rest = [network.values[other] if other else None for other in node.input[1:]]
    moved = evaluate(node, network.opset, [before[1], *rest])
    return None if moved is None else (before[0], moved[0])


def _fill(tensor: onnx.TensorProto, value: np.ndarray) -> None:
    """Put numbers into a tensor, in the field that it keeps them in."""
    new = numpy_helper.from_array(np.ascontiguousarray(value.astype(numpy_helper.to_array(tensor).dtype)))
    if tensor.float_data:
        tensor.float_data[:] = numpy_helper.to_array(new).reshape(-1).tolist()
    elif tensor.double_data:
        tensor.double_data[:] = numpy_helper.to_array(new).reshape(-1).tolist()
    else:
        tensor.raw_data = new.raw_data


def _names(model: onnx.ModelProto) -> set[str]:
    names: set[str] = set()
    for graph in graphs_of(model.graph):
        names.update(tensor.name for tensor in graph.initializer)
        names.update(value.name for value in (*graph.input, *graph.output))
        for node in graph.node:
            names.update((node.name, *node.output, *node.input))
    return names


def _copied(node: onnx.NodeProto) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy
