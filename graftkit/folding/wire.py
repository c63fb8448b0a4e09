"""Writes an ONNX message piece by piece, so that its weights are never in memory twice.

The bytes are those that `SerializeToString` of the whole message gives: fields in the order of their numbers, each a
tag (number and wire type), a length and its content (https://protobuf.dev/programming-guides/encoding).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import BinaryIO

from onnx import GraphProto, ModelProto, TensorProto

from graftkit.folding.written import Load, Written, byte_size, is_apart, pieces

_LENGTH_FIRST = 2  # the wire type of bytes and messages

Message = ModelProto | GraphProto | TensorProto


def write_whole(file: BinaryIO, model: Written) -> None:
    """Write the model as one message, weights included."""
    loads = {tensor.name: load for tensor, load in model.apart()}
    graph = model.proto.graph
    start, end = _around(graph, "initializer")
    tensors = [(_around_weight(tensor), tensor) for tensor in graph.initializer]
    sizes = [len(head) + (byte_size(tensor) if is_apart(tensor) else 0) for head, tensor in tensors]
    number = _number(graph, "initializer")
    content = sum(len(_head(number, size)) + size for size in sizes)
    before, after = _around(model.proto, "graph")
    file.write(before + _head(_number(model.proto, "graph"), len(start) + content + len(end)) + start)
    for (head, tensor), size in zip(tensors, sizes, strict=True):
        file.write(_head(number, size) + head)
        _write_weight(file, loads.get(tensor.name))
    file.write(end + after)


def _write_weight(file: BinaryIO, load: Load | None) -> None:
    for piece in pieces(load()) if load else ():
        file.write(piece)


def _around_weight(tensor: TensorProto) -> bytes:
    """A tensor up to its numbers, where these are apart; the whole of it otherwise."""
    if not is_apart(tensor):
        return bytes(tensor.SerializeToString())
    plain = TensorProto(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type)
    return bytes(plain.SerializeToString()) + _head(_number(tensor, "raw_data"), byte_size(tensor))


def _around(message: Message, field: str) -> tuple[bytes, bytes]:
    """What a message has before a field, and what behind it."""
    number = _number(message, field)
    names = {entry.number: entry.name for entry, _ in message.ListFields()}
    before = _without(message, (name for at, name in names.items() if at >= number))
    after = _without(message, (name for at, name in names.items() if at <= number))
    return before, after


def _without(message: Message, names: Iterable[str]) -> bytes:
    part = type(message)()
    part.CopyFrom(message)
    for name in names:
        part.ClearField(name)
    return bytes(part.SerializeToString())


def _number(message: Message, field: str) -> int:
    return int(message.DESCRIPTOR.fields_by_name[field].number)


def _head(number: int, size: int) -> bytes:
    return _varint(number << 3 | _LENGTH_FIRST) + _varint(size)


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the eighth says that there are more."""
    content = bytearray()
    while value > 127:
        content.append(value & 127 | 128)
        value >>= 7
    content.append(value)
    return bytes(content)
