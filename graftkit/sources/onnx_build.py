"""Builds a live module from a normalised ONNX graph: one call after the other, as an fx graph."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from onnx import AttributeProto, GraphProto, NodeProto
from torch import Tensor, fx

from graftkit.core.errors import RuntimeMissingError, SourceError
from graftkit.sources.onnx_borrow import Borrowing
from graftkit.sources.onnx_names import identifier, path_of, put
from graftkit.sources.onnx_normalise import apply_steps, graph_of
from graftkit.sources.onnx_operators import BORROWED, OPERATORS, ROLES, Call, UnsupportedError
from graftkit.sources.onnx_operators.call import Origin
from graftkit.sources.onnx_operators.numbers import Numbers, constant
from graftkit.sources.onnx_operators.recurrent import GATES, WEIGHTS, check_form, torch_weights
from graftkit.sources.onnx_weights import is_linear, is_transposed, learns, register, weighs
from graftkit.sources.pickle_safety import first_line, one_line

# A weight of one number stays a number here; other operators need a tensor.
_PLAIN = frozenset({"Add", "Mul", "Gather", "Expand", "Concat"})
_SPREADING = frozenset({"Expand", "Concat"})  # of a class token, or of a state to begin with


class Builder(Borrowing):
    """Builds one graph; a branch within it gets a builder of its own."""

    def build(self) -> fx.GraphModule:
        """The module. Raises SourceError, which names the node, and RuntimeMissingError."""
        for name in self.onnx.inputs:
            self.env[name] = self.graph.placeholder(identifier(name))
        for node in self.onnx.nodes:
            try:
                self._outputs(node, self._convert(node))
            except (SourceError, RuntimeMissingError):
                raise
            except UnsupportedError as error:
                raise self._refused(node, str(error)) from error
            except Exception as error:  # a foreign file's node, and a foreign converter
                raise self._refused(node, first_line(error)) from error
        outputs = tuple(self.get_value(name) for name in self.onnx.outputs)
        self.graph.output(outputs[0] if len(outputs) == 1 else outputs)
        return fx.GraphModule(self.root, self.graph)

    def _refused(self, node: NodeProto, why: str) -> SourceError:
        called = f"{one_line(node.op_type)} (node {one_line(node.name)!r})"
        return SourceError(f"{self.where}: {called} is not converted: {why}")

    def _convert(self, node: NodeProto) -> Any:
        kind = "Linear" if is_linear(node, self.tensors) else node.op_type
        if kind in OPERATORS:
            return self._call(node, kind)
        if kind in BORROWED:
            return self.borrow(node)
        raise UnsupportedError("graftkit knows no torch operator for it")

    def _outputs(self, node: NodeProto, made: Any) -> None:
        if len(node.output) == 1:
            self.env[node.output[0]] = made
            return
        for index, name in enumerate(node.output):
            if name in self.read:
                self.env[name] = self.graph.call_function(operator.getitem, (made, index))

    def _call(self, node: NodeProto, kind: str) -> fx.Node:
        call = Call(node, OPERATORS[kind], self.onnx.opset, self._attributes(node))
        if kind == "If":
            names = self._branches(call, node)
        elif kind in GATES:
            names = self._recurrent(call, node)
        else:
            names = self._inputs(call, node, kind)
        path = self.free(path_of(node, self.tensors))
        put(self.root, path, call)
        return self.graph.call_module(path, tuple(self.env[name] for name in names))

    def _inputs(self, call: Call, node: NodeProto, kind: str) -> list[str]:
        """Where each input comes from; the names of those that are handed in."""
        names: list[str] = []
        origins: list[Origin] = []
        roles = ROLES.get(kind, ())
        for place, name in enumerate(node.input):
            if not name:
                origins.append(None)
            elif name not in self.tensors:
                names.append(name)
                origins.append(len(names) - 1)
            else:
                role = roles[place] if place < len(roles) else ""
                origins.append(self._hold(call, name, role, place, node))
        call.origins = tuple(origins)
        return names

    def _hold(self, call: Call, name: str, role: str, place: int, node: NodeProto) -> Origin:
        """A tensor of the file: a few numbers stay numbers, more become a parameter or a buffer of the call."""
        value = self.tensors[name]
        small = None
        if not weighs(role, value) or (value.numel() == 1 and node.op_type in _PLAIN):
            small = constant(value)
        if small is not None:
            return small
        if call.operator is OPERATORS["Linear"] and role == "weight" and not is_transposed(node):
            value = value.t()
        trained = learns(role, value, varied=node.op_type in _SPREADING)
        own = role or f"constant_{place}"
        held, turned = self.tensors.held(value, learns=trained)
        register(call, own, held)
        if turned is not None:
            call.turned[own] = turned
        return own

    def _recurrent(self, call: Call, node: NodeProto) -> list[str]:
        check_form(node.op_type, call, node.input)
        held = [name if name in self.tensors else "" for name in (*node.input, "", "")[1:4]]
        if not all(held[:2]) or (len(node.input) > 3 and node.input[3] and not held[2]):
            raise UnsupportedError("its weights are computed")
        weights: dict[str, Tensor] = {}
        for name, kind in zip(held, WEIGHTS, strict=True):
            if name:
                make = partial(torch_weights, node.op_type, kind)
                weights |= self.tensors.once(f"{node.op_type} {kind}", name, make)
        for name in sorted(weights, key=lambda name: name.endswith("_reverse")):  # as torch wants them
            register(
                call, name, self.tensors.held(weights[name], learns=True)[0]
            )  # in memory of its own, so never turned
        names, origins = [node.input[0]], list[Origin]([0])
        for place, name in enumerate(node.input[5:7]):
            if name in self.tensors:
                register(call, f"state_{place}", self.tensors[name])
                origins.append(f"state_{place}")
            else:
                names += [name] if name else []
                origins.append(len(names) - 1 if name else None)
        call.origins = tuple(origins)
        return names

    def _branches(self, call: Call, node: NodeProto) -> list[str]:
        """Both branches as modules that take the same values from around them."""
        protos = [self._branch(node, name) for name in ("then_branch", "else_branch")]
        outer = list(dict.fromkeys(name for proto in protos for name in _outer(proto) if name in self.env))
        for name, proto in zip(("then_branch", "else_branch"), protos, strict=True):
            graph = graph_of(proto, self.tensors.copy(), self.onnx.opset)
            graph.inputs = outer
            apply_steps(graph)
            call.add_module(name, Builder(graph, self.where).build())
        call.origins = tuple(range(1 + len(outer)))
        return [node.input[0], *outer]

    def _branch(self, node: NodeProto, name: str) -> GraphProto:
        found = next((a for a in node.attribute if a.name == name and a.type == AttributeProto.GRAPH), None)
        if found is None:
            raise UnsupportedError(f"it has no {name}")
        return found.g  # type: ignore[no-any-return]

    def _attributes(self, node: NodeProto) -> Mapping[str, Numbers]:
        found: dict[str, Numbers] = {}
        for attribute in (attribute for attribute in node.attribute if attribute.type == AttributeProto.TENSOR):
            small = constant(self.tensors.load(attribute.t))
            if small is None:
                raise UnsupportedError(f"its attribute {one_line(attribute.name)} holds a whole tensor")
            found[attribute.name] = small
        return found


def _outer(graph: GraphProto) -> Iterator[str]:
    """What a branch reads and does not make."""
    made = {name for node in graph.node for name in node.output} | {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        yield from (name for name in node.input if name and name not in made)
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from (name for name in _outer(attribute.g) if name not in made)
    yield from (value.name for value in graph.output if value.name not in made)
