"""Refuses a TorchScript archive that would run code when it is loaded, or name what no model needs.

An archive is source text and pickles. torch.jit.load compiles the text, which runs nothing, and calls the
`__setstate__` of whatever class has one, which runs anything. Running the model then runs operators, and some of
those write and read files. So every text is parsed as Python, of which it is a subset, and held to what models
need; and because the two parsers need not agree on everything, the names are looked for in the bare text as well.
"""

from __future__ import annotations

import ast
import pickletools
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any

from graftkit.core.errors import SourceError
from graftkit.sources.files import READER_ERRORS
from graftkit.sources.pickle_calls import check_script_tensors
from graftkit.sources.pickle_depth import deepest
from graftkit.sources.pickle_safety import TRUST_HINT, one_line

_TEXT_LIMIT = 64 * 2**20
_PICKLE_LIMIT = 64 * 2**20
_DEEPEST = 150  # of brackets and blocks within each other; torch's parser and printer call themselves for each
_NODES_LIMIT = 1_000_000  # of the whole model, once every call is replaced by what it calls
_OPCODES_LIMIT = 500_000
_PICKLES = ("data.pkl", "constants.pkl")

_NAMING = ("GLOBAL", "INST", "STACK_GLOBAL")
_SPACES = frozenset({"aten", "prim", "torchvision"})
_FILES = frozenset({"save", "load", "from_file", "hub", "jit", "classes", "rpc", "distributed", "package"})
_HOOKS = frozenset({"__setstate__", "__getstate__"})
_GAP = r"(?:\s|\\\n|#[^\n]*\n)*"
# What may not stand in the text, whatever the parser makes of it.
_FORBIDDEN_TEXT: Mapping[str, re.Pattern[str]] = {
    "code that runs when it is loaded": re.compile(r"__(set|get)state__"),
    "an object that is not made of Python": re.compile(rf"\btorch{_GAP}\.{_GAP}classes\b"),
    "an operator on files": re.compile(rf"\b(torch|aten){_GAP}\.{_GAP}(save|from_file)\b"),
}
_TEXT_CHARACTERS = re.compile(r"[^\x00-\x08\x0b-\x1f\x7f]*")

_GLOBALS = re.compile(
    r"__torch__\.[\w.]+|torch\._utils\._rebuild_tensor(_v2)?|torch\.\w+Storage|collections\.OrderedDict"
    r"|torch\.jit\._pickle\.(build_\w+|restore_type_tag)|torch\.(device|Size|\w+\d+|bool)",
    re.ASCII,
)


def check_script(reader: Any, sizes: Mapping[str, int], where: str) -> None:
    """Raise SourceError for the first thing in the archive that a model has no need of.

    `reader` is the `torch._C.PyTorchFileReader` over the very file that will be loaded, `sizes` what `record_sizes`
    says of it.
    """
    for member in sizes:
        if member in _PICKLES or member.endswith(".debug_pkl"):
            content, place = _content(reader, member, sizes[member], _PICKLE_LIMIT, where), f"{where}: {member}"
            _check_pickle(content, place)
            check_script_tensors(content, place, _records(sizes, member))
        elif member.startswith("code/") and member.endswith(".py"):
            _check_text(_content(reader, member, sizes[member], _TEXT_LIMIT, where), f"{where}: {member}")
        elif member in ("model.json", "bytecode.pkl"):
            raise SourceError(f"{where} is of a kind that torch.jit.save does not write ({member}); save it again")


def check_size(functions: Any, where: str) -> None:
    """Raise SourceError where the model grows beyond measure once every call is replaced by what it calls.

    `functions` is the `torch._C.CompilationUnit` that the archive was compiled into; nothing has been run.
    """
    calls = {function.qualified_name: _calls(function.graph) for function in functions.get_functions()}
    sizes: dict[str, int] = {}
    try:
        order = [*TopologicalSorter(calls).static_order()]
    except CycleError as error:
        raise SourceError(f"{where}: its code calls itself, which no graph can hold") from error
    for name in order:
        counted = calls.get(name, Counter())
        sizes[name] = counted[""] + sum(count * sizes[called] for called, count in counted.items() if called)
        if sizes[name] > _NODES_LIMIT:
            raise SourceError(f"{where}: {one_line(name)} would grow to over {_NODES_LIMIT} operations; do not use it")


def _calls(graph: Any) -> Counter[str]:
    """How often the code calls what, and under "" how many operations it has itself."""
    found: Counter[str] = Counter()
    for node in _nodes(graph):
        found[""] += 1
        if node.kind() in ("prim::CallMethod", "prim::CallFunction"):
            called = next(node.inputs()).type().annotation_str
            found[f"{called}.{node.s('name')}" if node.kind() == "prim::CallMethod" else called] += 1
    return found


def _nodes(block: Any) -> Iterator[Any]:
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)


def _records(sizes: Mapping[str, int], pickled: str) -> Mapping[str, int]:
    """Bytes by the key of a storage: `data.pkl` keeps its own in `data/`, `constants.pkl` in `constants/`."""
    folder = pickled.removesuffix("pkl").removesuffix(".") + "/"
    return {member.removeprefix(folder): size for member, size in sizes.items() if member.startswith(folder)}


def _content(reader: Any, member: str, size: int, limit: int, where: str) -> bytes:
    if size > limit:
        raise SourceError(f"{where}: {one_line(member)} is larger than any model's; do not use this file")
    try:
        return bytes(reader.get_record(member))
    except READER_ERRORS as error:
        raise SourceError(f"{where} is damaged; copy or download it again") from error


def _check_pickle(content: bytes, where: str) -> None:
    """Torch reads these in C++ and knows few names; what it does not know is no TorchScript."""
    try:
        depth = deepest(content, _OPCODES_LIMIT)
        found = [(opcode.name, argument) for opcode, argument, _ in pickletools.genops(content)]
    except Exception as error:  # pickletools meets foreign bytes here, and raises whatever they provoke
        raise SourceError(f"{where} is damaged, or no model's: {one_line(str(error))}; do not use it") from error
    if depth > _DEEPEST:
        raise SourceError(f"{where} nests deeper than any model; do not use this file")
    for opcode, argument in found:
        if opcode not in _NAMING and not isinstance(argument, str):
            continue
        name = str(argument).replace(" ", ".")
        if opcode in _NAMING and not (opcode == "GLOBAL" and _GLOBALS.fullmatch(name)):
            raise _refused(where, one_line(name), "which TorchScript does not need")
        if name.startswith("__torch__.torch.classes"):
            raise _refused(where, one_line(name), "an object that is not made of Python")


def _check_text(content: bytes, where: str) -> None:
    try:
        text = content.decode("utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's own about odd comparisons and escapes
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise SourceError(f"{where} is damaged, or no TorchScript; copy or download it again") from error
    if not _TEXT_CHARACTERS.fullmatch(text):
        raise _refused(where, "a control character", "which torch.jit.save does not write")
    for why, pattern in _FORBIDDEN_TEXT.items():
        if found := pattern.search(text):
            raise _refused(where, one_line(found.group()), why)
    for node, depth in _walk(tree):
        if depth > _DEEPEST:
            raise SourceError(f"{where} nests deeper than any model's code; do not use this file")
        _check_node(node, where)


def _walk(tree: ast.AST) -> Iterator[tuple[ast.AST, int]]:
    todo: list[tuple[ast.AST, int]] = [(tree, 0)]
    while todo:
        node, depth = todo.pop()
        yield node, depth
        todo += ((child, depth + 1) for child in ast.iter_child_nodes(node))


def _check_node(node: ast.AST, where: str) -> None:
    match node:
        case ast.FunctionDef(name=name) if name in _HOOKS:
            raise _refused(where, name, "code that runs when it is loaded")
        case ast.Attribute(value=ast.Name(id="ops"), attr=space) if space not in _SPACES:
            raise _refused(where, f"ops.{space}", "operators that are not torch's own")
        case ast.Attribute(value=ast.Name(id="torch"), attr=name) if name in _FILES:
            raise _refused(where, f"torch.{name}", "which reaches beyond the model")
        case ast.Attribute(value=ast.Attribute(value=ast.Name(id="ops")), attr=name) if name in _FILES:
            raise _refused(where, f"ops.aten.{name}", "an operator on files")
        case ast.Import() | ast.ImportFrom() | ast.Lambda() | ast.AsyncFunctionDef() | ast.Await():
            raise _refused(where, type(node).__name__.lower(), "which TorchScript does not have")


def _refused(where: str, what: str, why: str) -> SourceError:
    return SourceError(f"{where} has {what}, {why}; {TRUST_HINT}")
