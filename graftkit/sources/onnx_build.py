"""Builds a live module from a normalised ONNX graph: one call after the other, as an fx graph."""

from __future__ import annotations

import keyword
import operator
import re
from collections.abc import Iterator, Mapping
from typing import Any

from onnx import AttributeProto, GraphProto, NodeProto
from torch import Tensor, fx, nn

from graftkit.core.errors import RuntimeMissingError, SourceError
from graftkit.sources.onnx_normalise import Graph, apply_steps, graph_of
from graftkit.sources.onnx_operators import BORROWED, FIXED, OPERATORS, ROLES, Call, UnsupportedError
from graftkit.sources.onnx_operators.call import Origin
from graftkit.sources.onnx_operators.numbers import Numbers, as_tensor, constant
from graftkit.sources.onnx_operators.recurrent import GATES, check_form, torch_weights
from graftkit.sources.onnx_tensors import Tensors
from graftkit.sources.pickle_safety import first_line, one_line

_WEIGHT = re.compile(r"(?P<path>[^\W\d]\w*(\.\w+)*)\.weight\w*", re.ASCII)
_LARGE = 1e4  # what no weight is: a mask's stand-in for minus infinity
_SPREADING = frozenset({"Expand", "Concat"})  # of a class token, or of a state to begin with
_LEARNING = frozenset({"weight", "bias", "scale", "weight_left"})


class Builder:
    """Builds one graph; a branch within it gets a builder of its own.

    It has the methods by which onnx2fx's operator functions build (`get_value`, `call_function`, `env`, ...).
    """

    def __init__(self, graph: Graph, where: str):
        self.onnx = graph
        self.where = where
        self.tensors = graph.tensors
        self.graph = fx.Graph()
        self.root = nn.Module()
        self.env: dict[str, Any] = {}
        self._as_tensors: dict[str, fx.Node] = {}
        self._constants: dict[str, Tensor] = {}
        self._opset_versions = {"": graph.opset}

    def build(self) -> fx.GraphModule:
        """The module. Raises SourceError, which names the node."""
        for name in self.onnx.inputs:
            self.env[name] = self.graph.placeholder(identifier(name))
        for node in self.onnx.nodes:
            try:
                self._convert(node)
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
        return SourceError(
            f"{self.where}: {one_line(node.op_type)} (node {one_line(node.name)!r}) is not converted: {why}"
        )

    def _convert(self, node: NodeProto) -> None:
        kind = "Linear" if _is_linear(node, self.tensors) else node.op_type
        if kind in OPERATORS:
            self._call(node, kind)
        elif kind in BORROWED:
            self._borrow(node)
        else:
            raise UnsupportedError("graftkit knows no torch operator for it")

    # ── operators of our own ─────────────────────────────────────────────────────────────────────

    def _call(self, node: NodeProto, kind: str) -> None:
        call = Call(node, OPERATORS[kind], self.onnx.opset, self._attributes(node))
        path = self._place(node)
        if kind == "If":
            names = self._branches(call, node)
            call.origins = tuple(range(len(names)))
        elif kind in GATES:
            names = self._recurrent(call, node)
        else:
            names = self._inputs(call, node, kind)
        self._add(path, call)
        made = self.graph.call_module(path, tuple(self.env[name] for name in names))
        self._outputs(node, made)

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
        weighs = (role in _LEARNING or role in FIXED) and value.is_floating_point()
        small = None if weighs and (value.numel() > 1 or not kind_is_plain(node)) else constant(value)
        if small is not None:
            return small
        if call.operator is OPERATORS["Linear"] and role == "weight" and not _transposed(node):
            value = value.t()
        own = role or f"constant_{place}"
        learns = role in _LEARNING and _may_learn(value, varied=node.op_type in _SPREADING)
        _register(call, own, self.tensors.held(value, learns=learns))
        return own

    def _recurrent(self, call: Call, node: NodeProto) -> list[str]:
        check_form(node.op_type, call, node.input)
        held = [name if name in self.tensors else "" for name in (*node.input, "", "")[1:4]]
        if not all(held[:2]) or (len(node.input) > 3 and node.input[3] and not held[2]):
            raise UnsupportedError("its weights are computed")
        weights = torch_weights(node.op_type, [self.tensors[name] if name else None for name in held])
        for name, value in weights.items():
            _register(call, name, self.tensors.held(value, learns=True))
        names, origins = [node.input[0]], list[Origin]([0])
        for place, name in enumerate(node.input[5:7]):
            if name in self.tensors:
                _register(call, f"state_{place}", self.tensors[name])
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

    def _outputs(self, node: NodeProto, made: Any) -> None:
        if len(node.output) == 1:
            self.env[node.output[0]] = made
            return
        for index, name in enumerate(node.output):
            if name:
                self.env[name] = self.graph.call_function(operator.getitem, (made, index))

    # ── operators of onnx2fx ─────────────────────────────────────────────────────────────────────

    def _borrow(self, node: NodeProto) -> None:
        try:
            from onnx2fx.op_registry import get_handler
        except ImportError as error:
            raise RuntimeMissingError(f"{self.where} has operators for which pip install 'graftkit[onnx]'") from error
        handler = get_handler(node.op_type, "", self.onnx.opset)
        if handler is None:
            raise UnsupportedError(f"opset {self.onnx.opset} does not have it")
        self._borrowing = node
        self._outputs(node, handler(self, node))  # type: ignore[arg-type]

    def get_value(self, name: str) -> Any:
        """A value as a tensor: what onnx2fx's functions read."""
        if name in self._as_tensors:
            return self._as_tensors[name]
        if name in self.tensors:
            found = self._constant(name)
        else:
            found = self.env[name]
            if found.op != "placeholder":
                found = self.graph.call_function(as_tensor, (found,))
        self._as_tensors[name] = found
        return found

    def has_value(self, name: str) -> bool:
        """Whether there is such a value."""
        return name in self.env or name in self.tensors

    def call_function(self, function: Any, args: Any = (), kwargs: Any = None) -> fx.Node:
        """Add a call of a function."""
        return self.graph.call_function(function, tuple(args), kwargs or {})

    def get_opset_version(self, domain: str = "") -> int:
        """Which version of the operators the file uses."""
        return self.onnx.opset

    @property
    def opset_version(self) -> int:
        """The same for the standard operators."""
        return self.onnx.opset

    def _constant(self, name: str) -> fx.Node:
        """A tensor that a borrowed operator reads: a parameter where that operator holds weights there."""
        node, value = self._borrowing, self.tensors[name]
        roles, place = ROLES.get(node.op_type, ()), list(node.input).index(name)
        role = roles[place] if place < len(roles) else ""
        path = f"{self._place(node, held=True)}"
        own = role or f"constant_{place}"
        learns = role in _LEARNING and _may_learn(value)
        if path not in dict(self.root.named_modules()):
            self._add(path, nn.Module())
        holder = self.root.get_submodule(path)
        if own not in holder._parameters and own not in holder._buffers:
            _register(holder, own, self.tensors.held(value, learns=learns))
        return self.graph.get_attr(f"{path}.{own}")

    # ── names ────────────────────────────────────────────────────────────────────────────────────

    def _place(self, node: NodeProto, *, held: bool = False) -> str:
        """Where the node's module goes: the path that its weight's name tells, or its own name as an identifier."""
        weight = next(
            (found for name in node.input if name in self.tensors and (found := _WEIGHT.fullmatch(name))), None
        )
        path = weight["path"] if weight else identifier(node.name or node.op_type.lower())
        first, *rest = path.split(".")
        path = ".".join([f"{first}_" if hasattr(fx.GraphModule, first) else first, *map(_member, rest)])
        return path if held else self._free(path)

    def _free(self, path: str) -> str:
        taken = {name for name, module in self.root.named_modules() if isinstance(module, Call)}
        return next(p for p in (path, *(f"{path}_{index}" for index in range(1, 10**6))) if p not in taken)

    def _add(self, path: str, module: nn.Module) -> None:
        """Put it there, and empty modules on the way; one that is there already hands on what it holds."""
        *way, last = path.split(".")
        at = self.root
        for step in way:
            if step not in at._modules:
                at.add_module(step, nn.Module())
            at = at._modules[step]  # type: ignore[assignment]
        for name, child in dict(at._modules[last]._modules if last in at._modules else {}).items():  # type: ignore[union-attr]
            module.add_module(name, child)
        at._modules[last] = module


def identifier(name: str) -> str:
    """A name as a Python identifier: `/layer1/conv1/Conv` gives `layer1_conv1_Conv`."""
    plain = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "value"
    plain = f"n{plain}" if plain[0].isdigit() else plain
    return f"{plain}_" if keyword.iskeyword(plain) else plain


def kind_is_plain(node: NodeProto) -> bool:
    """Whether a weight of one number may stay a number: others need a tensor there."""
    return node.op_type in ("Add", "Mul", "Gather", "Expand", "Concat")


def _member(name: str) -> str:
    return f"{name}_" if hasattr(nn.Module, name) else name


def _is_linear(node: NodeProto, tensors: Tensors) -> bool:
    """Whether it is a product with a held matrix, and at most a held bias."""
    if node.op_type == "Linear":
        return True
    if node.op_type not in ("MatMul", "Gemm") or node.input[1] not in tensors or node.input[0] in tensors:
        return False
    size = tensors.size(node.input[1])
    if len(size) != 2 or not tensors.floats(node.input[1]):
        return False
    if node.op_type == "MatMul":
        return True
    given = {attribute.name: attribute for attribute in node.attribute}
    scaled = any(name in given and given[name].f != 1.0 for name in ("alpha", "beta"))
    width = size[0] if _transposed(node) else size[1]
    bias = node.input[2] if len(node.input) > 2 else ""
    return (
        not scaled
        and not ("transA" in given and given["transA"].i)
        and (not bias or (bias in tensors and tensors.size(bias) == (width,)))
    )


def _transposed(node: NodeProto) -> bool:
    return any(attribute.name == "transB" and attribute.i for attribute in node.attribute)


def _may_learn(value: Tensor, *, varied: bool = False) -> bool:
    """Whether a tensor can be a weight: real numbers, none a stand-in for infinity; `varied`: and not all the same."""
    if not value.is_floating_point() or not value.numel():
        return False
    low, high = (float(n) for n in value.aminmax())
    return low > -_LARGE and high < _LARGE and not (varied and low == high)


def _register(module: nn.Module, name: str, value: nn.Parameter | Tensor) -> None:
    if isinstance(value, nn.Parameter):
        module.register_parameter(name, value)
    else:
        module.register_buffer(name, value)


def _outer(graph: GraphProto) -> Iterator[str]:
    """What a branch reads and does not make."""
    made = {name for node in graph.node for name in node.output} | {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        yield from (name for name in node.input if name and name not in made)
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from (name for name in _outer(attribute.g) if name not in made)
    yield from (value.name for value in graph.output if value.name not in made)
