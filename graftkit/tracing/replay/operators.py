"""TorchScript's operators (`aten::`): those on numbers and containers in Python, those on tensors as torch's own."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from graftkit.core.errors import TraceError
from graftkit.tracing.replay.primitives import DTYPES

SKIPPED = frozenset(
    {
        "prim::Print", "aten::warn", "aten::manual_seed",
        "profiler::_record_function_enter", "profiler::_record_function_exit",
    }
)  # fmt: skip
# Files and other processes: never called, whoever asks.
_CLOSED = frozenset({"aten::save", "aten::from_file", "aten::to_here", "aten::owner_name", "aten::_print"})

_LARGEST = 1_000_000  # members of a list or a text, and what one is multiplied by
_SIZED = (list, tuple, dict, str)
_LAYOUTS = (torch.strided,)
_FORMATS = (torch.contiguous_format, torch.preserve_format, torch.channels_last, torch.channels_last_3d)
_CODED: Mapping[str, tuple[Any, ...]] = {"dtype": DTYPES, "layout": _LAYOUTS, "memory_format": _FORMATS}

_Number = bool | int | float | torch.SymInt | torch.SymFloat | torch.SymBool

# On numbers, texts, None and lists of them; sizes stay symbols.
_NUMBERS: Mapping[str, Callable[..., Any]] = {
    "aten::add": operator.add, "aten::add_": operator.add, "aten::sub": operator.sub, "aten::mul": operator.mul,
    "aten::div": lambda a, b, rounding=None: a / b if rounding is None else _rounded(a, b, rounding),
    "aten::rsub": lambda a, b, alpha=1: b - a,
    "aten::floordiv": operator.floordiv, "aten::floor_divide": operator.floordiv,
    "aten::remainder": operator.mod, "aten::fmod": math.fmod, "aten::pow": operator.pow, "aten::neg": operator.neg,
    "aten::eq": operator.eq, "aten::ne": operator.ne, "aten::lt": operator.lt, "aten::le": operator.le,
    "aten::gt": operator.gt, "aten::ge": operator.ge, "aten::__is__": operator.is_, "aten::__isnot__": operator.is_not,
    "aten::__not__": operator.not_, "aten::__and__": operator.and_, "aten::__or__": operator.or_,
    "aten::__xor__": operator.xor, "aten::Int": torch.sym_int, "aten::Float": torch.sym_float, "aten::Bool": bool,
    "aten::IntImplicit": torch.sym_int, "aten::FloatImplicit": torch.sym_float,
    "aten::ScalarImplicit": lambda number: number, "aten::item": lambda number: number,
    "aten::ceil": math.ceil, "aten::floor": math.floor, "aten::sqrt": math.sqrt, "aten::round": round,
    "aten::log": math.log, "aten::exp": math.exp, "aten::cos": math.cos, "aten::sin": math.sin, "aten::abs": abs,
    "aten::to": lambda number, *rest: number, "aten::type_as": lambda number, other: number,
    "aten::detach": lambda number: number, "aten::clone": lambda number, *rest: number,
    "aten::str": str,
    "aten::is_scripting": lambda: True, "aten::is_grad_enabled": torch.is_grad_enabled,
    "aten::set_grad_enabled": lambda on: _set_gradients(on),
    "aten::get_autocast_gpu_dtype": lambda *rest: 5, "aten::is_autocast_enabled": lambda *rest: False,
}  # fmt: skip


def _set_gradients(on: bool) -> None:
    torch._C._set_grad_enabled(on)  # gives a node while it is traced


def _changed(change: Callable[..., Any]) -> Callable[..., Any]:
    """The container itself, after a change."""

    def run(container: Any, *rest: Any) -> Any:
        change(container, *rest)
        return container

    return run


# On lists, tuples, dicts and texts, whatever is in them.
_CONTAINERS: Mapping[str, Callable[..., Any]] = {
    "aten::len": len, "aten::__getitem__": operator.getitem, "aten::_set_item": _changed(operator.setitem),
    "aten::__contains__": operator.contains, "aten::append": _changed(list.append), "aten::list": list,
    "aten::extend": _changed(list.extend), "aten::insert": _changed(list.insert),
    "aten::pop": lambda c, *at: c.pop(*at), "aten::clear": _changed(lambda c: c.clear()),
    "aten::reverse": _changed(list.reverse), "aten::copy": lambda c: c.copy(),
    "aten::keys": lambda c: list(c.keys()), "aten::values": lambda c: list(c.values()),
    "aten::items": lambda c: list(c.items()), "aten::get": lambda c, *rest: c.get(*rest), "aten::dict": dict,
    "aten::update": _changed(lambda c, other: c.update(other)), "aten::Delete": _changed(operator.delitem),
    "aten::slice": lambda c, first, last, step=1: c[first:last:step], "aten::add": operator.add,
    "aten::add_": _changed(list.extend), "aten::mul": operator.mul, "aten::index": lambda c, value: c.index(value),
    "aten::count": lambda c, value: c.count(value), "aten::sort": _changed(lambda c, down=False: c.sort(reverse=down)),
    "aten::sorted": sorted, "aten::eq": operator.eq, "aten::ne": operator.ne, "aten::sum": sum,
    "aten::__is__": operator.is_, "aten::__isnot__": operator.is_not, "aten::join": lambda c, parts: c.join(parts),
    "aten::split": lambda c, *rest: c.split(*rest), "aten::startswith": lambda c, *rest: c.startswith(*rest),
    "aten::endswith": lambda c, *rest: c.endswith(*rest), "aten::lower": str.lower, "aten::upper": str.upper,
    "aten::replace": lambda c, *rest: c.replace(*rest), "aten::find": lambda c, *rest: c.find(*rest),
    "aten::format": lambda text, *values: _filled(text, values), "aten::any": any, "aten::all": all,
    "aten::get_autocast_dtype": lambda device: DTYPES.index(torch.get_autocast_dtype(device)),
}  # fmt: skip


def knows_python(kind: str, inputs: list[Any]) -> bool:
    """Whether the operation is one on numbers or containers, and not on tensors."""
    first = inputs[0] if inputs else None
    if isinstance(first, list | tuple | dict | str):
        return kind in _CONTAINERS
    if kind in ("aten::__is__", "aten::__isnot__"):
        return True
    return kind in _NUMBERS and not any(isinstance(value, Tensor) and not _is_number(value) for value in inputs)


def call_python(kind: str, inputs: list[Any]) -> Any:
    """The operation in Python. Raises TraceError where numbers or lists grow beyond what a model needs."""
    most = {"aten::pow": 64, "aten::mul": _LARGEST if isinstance(inputs[0], _SIZED) else 2**63}.get(kind, math.inf)
    if any(isinstance(value, int) and abs(value) > most for value in inputs[1:]):
        raise TraceError(f"its code calls {kind} with a number that no model needs")
    found = _python(kind, inputs)
    if (isinstance(found, int) and abs(found) >= 2**63) or (isinstance(found, _SIZED) and len(found) > _LARGEST):
        raise TraceError(f"its code makes more with {kind} than any model needs")
    return found


def _python(kind: str, inputs: list[Any]) -> Any:
    if isinstance(inputs[0] if inputs else None, list | tuple | dict | str):
        return _CONTAINERS[kind](*inputs)
    if kind in ("aten::__is__", "aten::__isnot__"):
        return _NUMBERS[kind](*inputs)
    values = [value.item() if isinstance(value, Tensor) else value for value in inputs]
    function = _NUMBERS[kind]
    return function(*values[:2]) if kind in ("aten::add", "aten::sub", "aten::add_") else function(*values)


def call_operator(node: Any, inputs: list[Any]) -> Any:
    """The operation as torch's own operator. Raises TraceError where there is none."""
    kind = node.kind()
    if kind in _CLOSED or not kind.startswith(("aten::", "torchvision::")):
        raise TraceError(f"its code calls {kind}, which is not replayed")
    if kind in _TENSORS:
        return _TENSORS[kind](node, inputs)
    found = _operator(node.schema())
    if found is None:
        raise TraceError(f"its code calls {kind}, which this torch does not have as an operator")
    overload, arguments = found
    values = [_fitting(value, argument) for value, argument in zip(inputs, arguments, strict=True)]
    keywords = {a.name: v for a, v in zip(arguments, values, strict=True) if a.kwarg_only}
    return overload(*values[: len(values) - len(keywords)], **keywords)


@lru_cache(maxsize=4096)
def _operator(written: str) -> tuple[Any, tuple[Any, ...]] | None:
    """The operator of a schema, and its arguments."""
    if written.startswith("("):
        return None
    schema = torch._C.parse_schema(written)
    space, name = schema.name.split("::")
    packet = getattr(getattr(torch.ops, space), name, None)
    overload = getattr(packet, schema.overload_name or "default", None)
    return None if overload is None else (overload, tuple(schema.arguments))


def _fitting(value: Any, argument: Any) -> Any:
    """The value as the operator wants it: types as torch's, a number as a tensor where it has to be one."""
    if argument.name in _CODED and isinstance(value, int) and not isinstance(value, bool):
        return _CODED[argument.name][value]
    if isinstance(value, _Number) and str(argument.type) in ("Tensor", "Optional[Tensor]"):
        return torch.scalar_tensor(value, dtype=_dtype_of(value))  # type: ignore[arg-type]
    return value


def _dtype_of(number: Any) -> torch.dtype:
    if isinstance(number, bool | torch.SymBool):
        return torch.bool
    return torch.float32 if isinstance(number, float | torch.SymFloat) else torch.int64


def _is_number(tensor: Tensor) -> bool:
    """A number that tracing wrote down as a tensor: no device, no gradient, not computed from an input."""
    return type(tensor) is Tensor and tensor.ndim == 0 and not tensor.requires_grad and tensor.dtype is torch.int64


def _filled(text: str, values: tuple[Any, ...]) -> str:
    """A message with its blanks filled; widths and other instructions in it are not followed."""
    for value in values:
        text = text.replace("{}", str(value), 1)
    return text


def _rounded(a: Any, b: Any, rounding: str) -> Any:
    return a // b if rounding == "floor" or (a >= 0) == (b >= 0) else -(-a // b)


# ── operators on tensors that are written another way here ────────────────────────────────────────


def _truth(node: Any, inputs: list[Any]) -> Any:
    """A condition: known when the module runs, a tensor while it is exported."""
    (tensor,) = inputs
    return tensor.bool() if torch.compiler.is_exporting() else bool(tensor)


def _logic(name: str) -> Callable[[Any, list[Any]], Any]:
    def run(node: Any, inputs: list[Any]) -> Any:
        tensors = [value if isinstance(value, Tensor) else torch.tensor(value) for value in inputs]
        return getattr(torch, name)(*tensors)

    return run


def _convolution(node: Any, inputs: list[Any]) -> Tensor:
    """A traced convolution as the call that was traced, which is a site."""
    x, weight, bias, stride, padding, dilation, transposed, output_padding, groups, *_ = inputs
    rank = weight.ndim - 2
    if transposed:
        up = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[rank - 1]
        return up(x, weight, bias, stride, padding, output_padding, groups, dilation)
    return (F.conv1d, F.conv2d, F.conv3d)[rank - 1](x, weight, bias, stride, padding, dilation, groups)


def _matmul(node: Any, inputs: list[Any]) -> Tensor:
    """A product with a transposed weight as the Linear call that an older torch wrote that way."""
    made_by = list(node.inputs())[1].node()
    if made_by.kind() == "aten::t" and made_by.input().node().kind() in ("prim::GetAttr", "prim::Constant"):
        return F.linear(inputs[0], inputs[1].t())
    return torch.matmul(*inputs)


def _interpolate(node: Any, inputs: list[Any]) -> Tensor:
    x, size, scale, mode, corners, *rest = inputs
    return F.interpolate(x, size, scale, mode, corners, *rest[:1])


def _size(node: Any, inputs: list[Any]) -> Any:
    return list(inputs[0].shape) if len(inputs) == 1 else inputs[0].shape[inputs[1]]


_TENSORS: Mapping[str, Callable[[Any, list[Any]], Any]] = {
    "aten::Bool": _truth,
    "aten::__not__": _logic("logical_not"),
    "aten::size": _size,
    "aten::dim": lambda node, inputs: inputs[0].ndim,
    "aten::numel": lambda node, inputs: inputs[0].numel(),
    "aten::len": lambda node, inputs: inputs[0].shape[0],
    "aten::Int": lambda node, inputs: inputs[0].item(),
    "aten::Float": lambda node, inputs: inputs[0].item(),
    "aten::IntImplicit": lambda node, inputs: inputs[0].item(),
    "aten::FloatImplicit": lambda node, inputs: inputs[0].item(),
    "aten::ScalarImplicit": lambda node, inputs: inputs[0].item(),
    "aten::is_floating_point": lambda node, inputs: inputs[0].is_floating_point(),
    "aten::_convolution": _convolution,
    "aten::matmul": _matmul,
    "aten::__interpolate": _interpolate,
}  # fmt: skip
