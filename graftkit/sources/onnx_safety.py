"""Refuses an ONNX file that is damaged, or that would read, run or allocate what no model needs.

This comes before anything of the onnx package looks at the file: its checker and its shape inference are native
code. What is found here is what a reader would otherwise stumble over: cycles, missing values, tensors that are not
what they say, data files elsewhere, graphs within graphs, functions that double at every call.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TypeProto

from graftkit.core.errors import SourceError
from graftkit.sources.onnx_arity import wrong_arity
from graftkit.sources.onnx_tensors import DTYPES, Tensors
from graftkit.sources.onnx_texts import names_in
from graftkit.sources.pickle_safety import one_line

OPSETS = (7, 28)
_LARGEST_FILE = 2**31  # protobuf's own limit; more is kept in data files
_NODES_LIMIT = 100_000
_SPAN_LIMIT = 2**29  # bytes of all functions, each in the place of its calls
_DEEPEST = 8
_DOMAINS = frozenset({"", "ai.onnx"})
_KINDS = frozenset(
    {
        AttributeProto.FLOAT, AttributeProto.INT, AttributeProto.STRING, AttributeProto.TENSOR, AttributeProto.GRAPH,
        AttributeProto.FLOATS, AttributeProto.INTS, AttributeProto.STRINGS,
    }
)  # fmt: skip


def read_proto(path: Path) -> ModelProto:
    """The file as a message; tensors in other files are not read. Raises SourceError."""
    size = path.stat().st_size
    if size >= _LARGEST_FILE:
        raise SourceError(f"{path} holds {size} bytes, more than an ONNX file can; save it with its tensors beside it")
    try:
        return ModelProto.FromString(path.read_bytes())  # type: ignore[no-any-return]
    except (DecodeError, ValueError, MemoryError, RecursionError) as error:
        raise SourceError(f"{path} is not a whole ONNX file, or nests too deep; copy or download it again") from error


def check_model(model: ModelProto, tensors: Tensors, where: str) -> None:
    """Raise SourceError for the first thing in the file that cannot be read, or should not be."""
    if not model.HasField("graph") or not model.graph.node:
        raise SourceError(f"{where} is an ONNX file without a graph, or no ONNX file; copy or download it again")
    if any(not isinstance(name, str) for name in names_in(model)):  # protobuf gives what is no UTF-8 as bytes
        raise SourceError(f"{where} has a name that is no text; it is damaged: copy or download it again")
    _check_opsets(model, where)
    _check_ports(model.graph, where)
    functions = {(function.domain, function.name): function for function in model.functions}
    _check_growth(model.graph, functions, where)
    for function in functions.values():
        version = _version(function.opset_import) or opset(model)
        _Names(where, tensors, functions, version).check_nodes(list(function.node), set(function.input), 0)
    _Names(where, tensors, functions, opset(model)).check_graph(model.graph, set(), 0)


def opset(model: ModelProto) -> int:
    """Which version of the standard operators a checked file uses."""
    return _version(model.opset_import)


def _version(imports: Iterable[OperatorSetIdProto]) -> int:
    """The version of the standard operators, nought where none is named."""
    return int(max((entry.version for entry in imports if entry.domain in _DOMAINS), default=0))


def _check_opsets(model: ModelProto, where: str) -> None:
    version = opset(model)
    if not version:
        raise SourceError(f"{where} does not say which version of ONNX's operators it uses; export it again")
    lowest, highest = OPSETS
    if not lowest <= version <= highest:
        raise SourceError(
            f"{where} uses opset {version}; {lowest} to {highest} are read: export it again, or convert it with"
            " onnx.version_converter"
        )


def _check_ports(graph: GraphProto, where: str) -> None:
    held = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in held]
    if not inputs or not graph.output:
        raise SourceError(f"{where} has no {'outputs' if inputs else 'inputs'}, so there is nothing to train")
    for value in (*inputs, *graph.output):
        kind: TypeProto = value.type
        if kind.WhichOneof("value") != "tensor_type" or kind.tensor_type.elem_type not in DTYPES:
            raise SourceError(f"{where}: {one_line(value.name)!r} is no tensor of numbers, which is all that is read")
        if len(kind.tensor_type.shape.dim) > 12:
            raise SourceError(f"{where}: {one_line(value.name)!r} has {len(kind.tensor_type.shape.dim)} dimensions")


def _check_growth(graph: GraphProto, functions: dict[tuple[str, str], FunctionProto], where: str) -> None:
    """Count the nodes there are once every function is in the place of its calls."""
    calls: dict[tuple[str, str], Counter[tuple[str, str]]] = {
        key: Counter((node.domain, node.op_type) for node in _all_nodes(function.node))
        for key, function in functions.items()
    }
    calls[("", "")] = Counter((node.domain, node.op_type) for node in _all_nodes(graph.node))
    try:
        order = [*TopologicalSorter(calls).static_order()]
    except CycleError as error:
        raise SourceError(f"{where} has a function that calls itself; do not use it") from error
    own = {key: function.ByteSize() for key, function in functions.items()}
    sizes: dict[tuple[str, str], int] = {}
    spans: dict[tuple[str, str], int] = {}  # in bytes, so that a tensor in a function counts at every call
    for key in order:
        counted = calls.get(key)
        sizes[key] = 1 if counted is None else sum(count * sizes[called] for called, count in counted.items())
        spans[key] = own.get(key, 0) + sum(count * spans[called] for called, count in (counted or {}).items())
        if sizes[key] > _NODES_LIMIT:
            raise SourceError(f"{where} has more than {_NODES_LIMIT} nodes, which no model needs; do not use it")
        if spans[key] > _SPAN_LIMIT:
            raise SourceError(f"{where} has functions that would grow to {spans[key]} bytes; do not use it")


def _all_nodes(nodes: object, depth: int = 0) -> Iterator[NodeProto]:
    for node in nodes:  # type: ignore[attr-defined]
        yield node
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH and depth < 50:  # protobuf reads a hundred
                yield from _all_nodes(attribute.g.node, depth + 1)


class _Names:
    """Follows which values are there, graph by graph."""

    def __init__(self, where: str, tensors: Tensors, functions: dict[tuple[str, str], FunctionProto], version: int):
        self.where = where
        self.tensors = tensors
        self.functions = functions
        self.version = version

    def check_graph(self, graph: GraphProto, outer: set[str], depth: int) -> None:
        """A graph whose nodes may read its own values and those of the graphs around it."""
        if depth > _DEEPEST:
            raise SourceError(f"{self.where} has graphs within graphs, {depth} deep; do not use it")
        if graph.sparse_initializer:
            raise SourceError(f"{self.where} has sparse tensors, which are not read; export it with dense ones")
        names = Counter(tensor.name for tensor in graph.initializer)
        inputs = Counter(value.name for value in graph.input)
        doubled = [name for name, count in (*names.items(), *inputs.items()) if count > 1 or not name]
        if doubled:
            raise SourceError(f"{self.where} names two things {one_line(doubled[0])!r}; export it again")
        for tensor in graph.initializer:
            self.tensors.check(tensor)
        there = self.check_nodes(list(graph.node), outer | set(names) | set(inputs), depth)
        missing = [value.name for value in graph.output if value.name not in there]
        if missing:
            raise SourceError(f"{self.where}: the output {one_line(missing[0])!r} is never made; export it again")

    def check_nodes(self, nodes: list[NodeProto], there: set[str], depth: int) -> set[str]:
        """The names that are there after the nodes, in whatever order these stand."""
        makers: dict[str, int] = {}
        for index, node in enumerate(nodes):
            for name in filter(None, node.output):
                if name in makers or name in there:
                    raise SourceError(f"{self.where} makes {one_line(name)!r} twice; export it again")
                makers[name] = index
        reads = {index: set() for index in range(len(nodes))}  # type: dict[int, set[int]]
        for index, node in enumerate(nodes):
            self._check_node(node, there | makers.keys(), depth)
            reads[index] = {makers[name] for name in _read_by(node) if name in makers}
        try:
            TopologicalSorter(reads).prepare()
        except CycleError as error:
            called = one_line(nodes[error.args[1][0]].name) or nodes[error.args[1][0]].op_type
            raise SourceError(f"{self.where} computes {called!r} from itself; export it again") from error
        return there | makers.keys()

    def _check_node(self, node: NodeProto, there: set[str], depth: int) -> None:
        called = f"{one_line(node.op_type)} (node {one_line(node.name)!r})"
        if node.domain not in _DOMAINS and (node.domain, node.op_type) not in self.functions:
            raise SourceError(
                f"{self.where} has the operator {called} of {one_line(node.domain)}, which is not ONNX's own;"
                " export it with standard operators"
            )
        wrong = wrong_arity(node, self.version) if node.domain in _DOMAINS else None
        if wrong:
            raise SourceError(f"{self.where}: {called} {wrong}, which its operator does not allow; export it again")
        missing = [name for name in node.input if name and name not in there]
        if missing:
            raise SourceError(f"{self.where}: {called} reads {one_line(missing[0])!r}, which is not there")
        for attribute in node.attribute:
            if attribute.ref_attr_name:
                continue
            if attribute.type not in _KINDS:
                raise SourceError(f"{self.where}: {called} has {one_line(attribute.name)!r}, which is not read")
            if attribute.type == AttributeProto.TENSOR:
                self.tensors.check(attribute.t)
            if attribute.type == AttributeProto.GRAPH:
                self.check_graph(attribute.g, there, depth + 1)


def _read_by(node: NodeProto) -> Iterator[str]:
    """Every name that a node reads, those that its graphs read from around them included."""
    yield from filter(None, node.input)
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            for inner in attribute.g.node:
                yield from _read_by(inner)
            yield from (value.name for value in attribute.g.output)


def checked(path: Path) -> tuple[ModelProto, Tensors]:
    """A file that passed, and its tensors. Raises SourceError."""
    where = str(path)
    model, tensors = read_proto(path), Tensors(path.parent, where)
    check_model(model, tensors, where)
    return model, tensors
