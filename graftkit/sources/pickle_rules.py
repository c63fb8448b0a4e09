"""Which functions a pickle of torch.save calls, with which arguments, and how large what they make may be."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.serialization import StorageType

from graftkit.sources.allowed_globals import ALLOWED_GLOBALS

LAYERS = frozenset(name for name in ALLOWED_GLOBALS if name.startswith("torch.nn.modules."))
# As in an archive: what is more than the file could fill is no model's.
_GROWTH, _SLACK = 4, 64 * 2**20
_KINDS = "BFloat16 Bool Byte Char ComplexDouble ComplexFloat Double Float Half Int Long QInt32 QInt8 QUInt8 Short"
_STORAGES = frozenset(f"{kind}Storage" for kind in _KINDS.split())
_ENCODINGS = frozenset({"latin1", "latin-1"})  # the ones that pickle itself writes bytes in


class RefusedError(Exception):
    """Says what the pickle does that no file of torch.save does."""


@dataclass(frozen=True)
class Named:
    """A class or function, by its whole name."""

    name: str


@dataclass(frozen=True)
class Made:
    """What a class or function gave."""

    name: str


@dataclass(eq=False)
class Rows:
    """A list."""

    members: list[Any] = field(default_factory=list)


@dataclass(eq=False)
class Mapped:
    """A dict, with what it holds under texts."""

    items: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Storage:
    """Numbers in the file: how many bytes, and how many each takes."""

    size: int
    width: int


@dataclass(eq=False)
class Room:
    """How many bytes the file holds.

    Attributes:
        held: altogether.
        records: and for each storage, where its reader does not look itself.
        beyond: how many the tensors so far show beyond what their storages hold.
    """

    held: int
    records: Mapping[str, int] | None = None
    beyond: int = 0

    @property
    def most(self) -> int:
        """The bytes that anything in the file may take."""
        return _GROWTH * self.held + _SLACK


Rule = Callable[[Room, tuple[Any, ...]], Any]  # what a call gives, None where torch.save makes no such call


def storage_of(told: Any, room: Room) -> Storage | None:
    """The storage that a persistent id names: kind, key, device, count, and in old files the part that is seen."""
    if not isinstance(told, tuple) or len(told) not in (5, 6) or told[0] != "storage" or not isinstance(told[1], Named):
        return None
    width, view = _width(told[1].name.replace("UntypedStorage", "ByteStorage")), told[5] if len(told) == 6 else None
    count = told[4]
    if width is None or not _whole(count) or count * width > room.most:
        return None
    if room.records is not None and count * width > room.records.get(str(told[2]), 0):
        return None
    if view is not None:
        if not isinstance(view, tuple) or len(view) != 3 or not (_whole(view[1]) and _whole(view[2])):
            return None
        count = view[2] if view[1] + view[2] <= count else -1
    return Storage(count * width, width) if count >= 0 else None


def _width(kind: str) -> int | None:
    """How many bytes a number takes, by the name of a storage or of a type."""
    last = kind.rpartition(".")[2]
    found = StorageType(last).dtype if last in _STORAGES else getattr(torch, last, None)  # type: ignore[no-untyped-call]
    return found.itemsize if isinstance(found, torch.dtype) else None


def _whole(value: Any) -> bool:
    return type(value) is int and value >= 0


def _tensor(room: Room, arguments: tuple[Any, ...]) -> Made | None:
    """(storage, offset, size, stride, ...): within its storage, and what shows a part of it again and again counts."""
    if len(arguments) < 4 or not isinstance(arguments[0], Storage):
        return None
    storage, offset, size, stride = arguments[:4]
    if not (_wholes(size) and _wholes(stride) and _whole(offset) and len(size) == len(stride)):
        return None
    numbers = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if numbers and (last + 1) * storage.width > storage.size:
        raise RefusedError("has a tensor that reaches beyond its storage")
    room.beyond += max(0, numbers * storage.width - storage.size)
    if room.beyond > room.most:
        raise RefusedError(f"shows numbers that it holds again and again, {room.beyond} bytes of them")
    return Made("torch.Tensor")


def _typed_tensor(room: Room, arguments: tuple[Any, ...]) -> Made | None:
    """The same with a type of its own, the seventh, for bytes that have none."""
    kind = arguments[6] if len(arguments) > 6 else None
    width = _width(kind.name) if isinstance(kind, Named) else None
    if width is None or not isinstance(arguments[0], Storage):
        return None
    return _tensor(room, (Storage(arguments[0].size, width), *arguments[1:]))


def _wholes(value: Any) -> bool:
    return isinstance(value, tuple) and all(map(_whole, value))


def _filled(kind: str) -> Rule:
    """A container, empty or from one dict, or list of things that are no tensors: those would be taken apart."""

    def rule(room: Room, arguments: tuple[Any, ...]) -> Made | None:
        match arguments:
            case () | (Mapped(),):
                return Made(kind)
            case (Rows(members=members),) if not any(each in _TENSORS for each in members):
                return Made(kind)
        return None

    return rule


def _bytes(room: Room, arguments: tuple[Any, ...]) -> Made | None:
    """From a text in the one encoding, or from such bytes; never of a length."""
    match arguments:
        case () | (Made(name="_codecs.encode"),):
            return Made("builtins.bytearray")
        case (str(), str(encoding)) if encoding in _ENCODINGS:
            return Made("_codecs.encode")
    return None


def _size(room: Room, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
    return arguments[0] if len(arguments) == 1 and _wholes(arguments[0]) else None


def _plain(kind: str) -> Rule:
    """Of texts and numbers alone."""

    def rule(room: Room, arguments: tuple[Any, ...]) -> Made | None:
        return Made(kind) if all(isinstance(each, str | int | float) for each in arguments) else None

    return rule


def _around(kind: str) -> Rule:
    """Of a tensor, and whatever is kept beside it."""

    def rule(room: Room, arguments: tuple[Any, ...]) -> Made | None:
        return Made(kind) if arguments and arguments[0] in _TENSORS else None

    return rule


_PARAMETER = "torch.nn.parameter.Parameter"
_TENSORS = (Made("torch.Tensor"), Made(_PARAMETER))
RULES: Mapping[str, Rule] = {
    **{f"torch._utils.{name}": _tensor for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_qtensor")},
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
    "torch._utils._rebuild_parameter": _around(_PARAMETER),
    "torch._utils._rebuild_parameter_with_state": _around(_PARAMETER),
    _PARAMETER: _around(_PARAMETER),
    "collections.OrderedDict": _filled("collections.OrderedDict"),
    "collections.Counter": _filled("collections.Counter"),
    "builtins.set": _filled("builtins.set"),
    "builtins.bytearray": _bytes,
    "_codecs.encode": _bytes,
    "builtins.complex": _plain("builtins.complex"),
    "torch.device": _plain("torch.device"),
    "torch.serialization._get_layout": _plain("torch.serialization._get_layout"),
    "torch.Size": _size,
}
