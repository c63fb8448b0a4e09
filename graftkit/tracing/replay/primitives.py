"""TorchScript's own operations (`prim::`) in Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from graftkit.core.errors import TraceError

# As TorchScript counts types: c10's ScalarType.
DTYPES = (
    torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16, torch.float32, torch.float64,
    torch.complex32, torch.complex64, torch.complex128, torch.bool, torch.qint8, torch.quint8, torch.qint32,
    torch.bfloat16,
)  # fmt: skip

Primitive = Callable[[Any, list[Any]], Any]


def _first(node: Any, inputs: list[Any]) -> Any:
    return inputs[0]


def _raise(node: Any, inputs: list[Any]) -> None:
    raise ValueError(str(inputs[0]))


def _dictionary(node: Any, inputs: list[Any]) -> dict[Any, Any]:
    return dict(zip(inputs[::2], inputs[1::2], strict=True))


def _type_code(node: Any, inputs: list[Any]) -> int:
    return DTYPES.index(inputs[0].dtype)


def _to_list(node: Any, inputs: list[Any]) -> Any:
    if torch.compiler.is_exporting():
        raise TraceError("its code turns a tensor into a list of numbers, which no graph can hold")
    return inputs[0].tolist()


def _extreme(smallest: bool) -> Primitive:
    pick: Callable[[Any, Any], Any] = torch.sym_min if smallest else torch.sym_max

    def run(node: Any, inputs: list[Any]) -> Any:
        values = list(inputs[0]) if len(inputs) == 1 else inputs
        found = values[0]
        for value in values[1:]:
            found = pick(found, value)
        return found

    return run


_LONGEST = 1_000_000
# What a tensor that is read and trained here never is.
_NEVER = (
    "ipu",
    "maia",
    "meta",
    "mkldnn",
    "mps",
    "mtia",
    "nested",
    "quantized",
    "sparse",
    "sparse_csr",
    "vulkan",
    "xla",
    "xpu",
)

_KINDS: Mapping[str, Callable[[Any], bool]] = {
    "NoneType": lambda value: value is None,
    "Tensor": lambda value: isinstance(value, Tensor),
    "int": lambda value: isinstance(value, int | torch.SymInt) and not isinstance(value, bool),
    "float": lambda value: isinstance(value, float | torch.SymFloat),
    "bool": lambda value: isinstance(value, bool),
    "str": lambda value: isinstance(value, str),
}


def _is_instance(node: Any, inputs: list[Any]) -> bool:
    return any(_is(inputs[0], str(kind)) for kind in node.tys("types"))


def _is(value: Any, kind: str) -> bool:
    if kind in _KINDS:
        return _KINDS[kind](value)
    if kind.endswith("[]") or kind.startswith("List["):
        return isinstance(value, list)
    if kind.startswith(("(", "Tuple[")):
        return isinstance(value, tuple)
    if kind.startswith("Dict("):
        return isinstance(value, dict)
    raise TraceError(f"its code asks whether a value is of type {kind}, which cannot be followed")


def _part(node: Any, inputs: list[Any]) -> Sequence[Any]:
    return inputs[0][node.i("beg") : node.i("end")]  # type: ignore[no-any-return]


PRIMITIVES: Mapping[str, Primitive] = {
    "prim::ListConstruct": lambda node, inputs: inputs,
    "prim::TupleConstruct": lambda node, inputs: tuple(inputs),
    "prim::DictConstruct": _dictionary,
    "prim::ListUnpack": _first,
    "prim::TupleUnpack": _first,
    "prim::TupleIndex": lambda node, inputs: inputs[0][inputs[1]],
    "prim::TupleSlice": _part,
    "prim::unchecked_cast": _first,
    "prim::unchecked_unwrap_optional": _first,
    "aten::_unwrap_optional": _first,
    "prim::NumToTensor": _first,  # sizes of a traced module: they stay numbers, so that they can stay free
    "prim::Uninitialized": lambda node, inputs: None,
    "prim::RaiseException": _raise,
    "prim::isinstance": _is_instance,
    "prim::dtype": _type_code,
    "prim::device": lambda node, inputs: inputs[0].device,
    "prim::type": lambda node, inputs: inputs[0].type,
    "prim::index": lambda node, inputs: inputs[0].index,
    "prim::layout": lambda node, inputs: 0,
    "prim::requires_grad": lambda node, inputs: inputs[0].requires_grad,
    "prim::is_cuda": lambda node, inputs: inputs[0].is_cuda,
    "prim::is_cpu": lambda node, inputs: inputs[0].is_cpu,
    **{f"prim::is_{kind}": lambda node, inputs: False for kind in _NEVER},
    "prim::data": lambda node, inputs: inputs[0].detach(),
    "prim::shape": lambda node, inputs: list(inputs[0].shape),
    "prim::rangelist": lambda node, inputs: list(range(min(inputs[0], _LONGEST))),
    "prim::abs": lambda node, inputs: abs(inputs[0]),
    "prim::min": _extreme(True),
    "prim::max": _extreme(False),
    "prim::tolist": _to_list,
}  # fmt: skip
