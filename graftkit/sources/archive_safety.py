"""Refuses a `.pt2` archive that could run code when torch.export reads it, or when its graph is compiled.

Where text in an archive becomes code (torch 2.13, torch/_export/serde/serialize.py and torch/export):
expressions go through `sympy.sympify`; guards, node names, argument names and parameter names are pasted
into Python source; node targets are looked up by name; tree specifications import the modules they name;
some members are unpickled. So every text has to look like what torch writes, by its place in the JSON.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from graftkit.core.errors import SourceError
from graftkit.sources.expression_grammar import is_expression, is_guard
from graftkit.sources.pickle_safety import TRUST_HINT, load_restricted, refuse_strangers
from graftkit.sources.torch_zip import structure

_JSON_LIMIT = 256 * 2**20
_MEMBERS = re.compile(
    r"archive_format|archive_version|byteorder|version|\.data/\w+|\.format_version|\.storage_alignment"
    r"|models/[\w.-]+\.json|extra/[^\0]*"
    r"|data/(weights/weight_\d+|constants/tensor_\d+|sample_inputs/[\w.-]+\.pt)"
    r"|data/(weights|constants)/[\w.-]+(_config\.json|\.pt)"
)
# Names of parameters and modules, versions: nothing here can end a string, start a call or stand in a signature.
_PLAIN = re.compile(r"[\w .+@\-]*")
_NAME = re.compile(r"\w*", re.ASCII)
_PAYLOAD = re.compile(r"(weight|tensor)_\d+", re.ASCII)

_ARITHMETIC = "add and_ eq floordiv ge getitem gt le lshift lt mod mul ne neg or_ pos pow rshift sub truediv"
_SYMBOLIC = "sym_float sym_int sym_ite sym_max sym_min sym_not sym_sqrt _sym_sqrt"
_CONTROL_FLOW = "associative_scan cond map_impl scan while_loop wrap_with_autocast wrap_with_set_grad_enabled"
_OPERATORS = frozenset(
    ["math.trunc"]
    + [f"_operator.{name}" for name in _ARITHMETIC.split()]
    + [f"torch.{name}" for name in _SYMBOLIC.split()]
    + [f"torch.ops.higher_order.{name}" for name in _CONTROL_FLOW.split()]
)
_TREES = frozenset({None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"})

# How a tensor with attributes of its own is pickled; exporting with Dim.DYNAMIC marks its examples so. The
# first calls what it is given, and is given nothing but the allowed names, by torch's own unpickler.
_MARKED_TENSORS = frozenset({"torch._tensor._rebuild_from_type_v2", "torch.Tensor"})


def check_archive(reader: Any, sizes: Mapping[str, int], where: str) -> None:
    """Raise SourceError for the first thing in the archive that is not what torch.export.save writes.

    `reader` is the `torch._C.PyTorchFileReader` over the very file that will be loaded: another zip
    reader could be shown other members. `sizes` is what `record_sizes` says of it.
    """
    for member in reader.get_all_records():
        if not _MEMBERS.fullmatch(member):
            raise _refused(where, f"the member {member!r}", "compiled code or an object of an unknown kind")
    for member in reader.get_all_records():
        if member.endswith(".json") and not member.startswith("extra/"):
            _check_json(reader, member, sizes[member], where)
        elif member.endswith(".pt") and not member.startswith("extra/"):
            _check_pickle(reader, member, where)


def _check_json(reader: Any, member: str, size: int, where: str) -> None:
    if size > _JSON_LIMIT:
        raise SourceError(f"{where}: {member} is larger than any model's graph; do not use this file")
    try:
        texts = list(_texts(json.loads(reader.get_record(member)), ("",)))
    except (ValueError, RecursionError, RuntimeError) as error:
        raise SourceError(f"{where}: {member} is damaged; copy or download it again") from error
    for keys, text in texts:
        if not _check_of(keys)(text):
            what = f"{keys[-1] or member} {_shortened(text)}"
            raise _refused(where, what, "text that torch.export.save does not write")


def _check_pickle(reader: Any, member: str, where: str) -> None:
    """Load a pickled member as torch.export will, so that its fall-back to full unpickling is never reached."""
    content = reader.get_record(member)
    if content:
        place = f"{where}: {member}"
        refuse_strangers(structure(io.BytesIO(content), place), place, also=_MARKED_TENSORS)
        load_restricted(io.BytesIO(content), place)


def _texts(value: Any, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every text in the JSON, with the last three keys above it; keys are texts too."""
    if isinstance(value, Mapping):
        for key, below in value.items():
            yield ("",), key
            yield from _texts(below, (*keys[-2:], key))
    elif isinstance(value, list):
        for below in value:
            yield from _texts(below, keys)
    elif isinstance(value, str):
        yield keys, value


def _check_of(keys: tuple[str, ...]) -> Callable[[str], bool]:
    """What a text has to be at this place. A key's own check comes before the freedom that its parent gives."""
    if keys[-1] in _CHECKS:
        return _CHECKS[keys[-1]]
    # An operator's argument is quoted with repr; as an input of the graph, a text would be pasted into guards.
    if keys == ("inputs", "arg", "as_string"):
        return _anything
    # Traces and scopes: split and kept as text, or used to look up a name in torch, which is never called.
    return _anything if keys[-2:-1] == ("metadata",) else _is_plain


def _anything(text: str) -> bool:
    return True


def _is_plain(text: str) -> bool:
    return bool(_PLAIN.fullmatch(text))


def _is_name(text: str) -> bool:
    return bool(_NAME.fullmatch(text))


def _is_payload(text: str) -> bool:
    return bool(_PAYLOAD.fullmatch(text))


def _is_target(text: str) -> bool:
    return text in _OPERATORS or _is_aten(text)


def _is_aten(text: str) -> bool:
    """Whether it names an overload of an aten operator that touches tensors only, not files."""
    head, _, rest = text.partition("torch.ops.aten.")
    name, _, overload = rest.partition(".")
    operator = getattr(getattr(torch.ops.aten, name, None), overload, None) if not head and name and overload else None
    if not isinstance(operator, torch._ops.OpOverload):
        return False
    return not any(argument.name == "filename" for argument in operator._schema.arguments)


def _is_tree(text: str) -> bool:
    try:
        version, tree = json.loads(text)
        return version == 1 and _is_subtree(tree)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return False


def _is_subtree(tree: Mapping[str, Any]) -> bool:
    context = json.loads(tree["context"]) if tree["context"] else None
    keys = context if isinstance(context, list) else [context]
    return (
        tree["type"] in _TREES
        and all(key is None or isinstance(key, int) or (isinstance(key, str) and _is_plain(key)) for key in keys)
        and all(map(_is_subtree, tree["children_spec"]))
    )


_CHECKS: Mapping[str, Callable[[str], bool]] = {
    "expr_str": is_expression,
    "guards_code": is_guard,
    "target": _is_target,
    "as_operator": _is_target,
    "in_spec": _is_tree,
    "out_spec": _is_tree,
    "name": _is_name,
    "as_name": _is_name,
    "forward_arg_names": _is_name,
    "path_name": _is_payload,
}


def _refused(where: str, what: str, why: str) -> SourceError:
    return SourceError(f"{where}: {what} is {why}, and may run any code when loaded; {TRUST_HINT}")


def _shortened(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
