"""How a worker is spoken with: frames of a header and arrays. Nothing in one is ever run.

A frame is the header's length (4 bytes, the most significant first), the header as JSON, and the numbers of the arrays
that the header lists under "arrays" (name, dtype, shape), one after another, little-endian and in C order.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

DTYPES = frozenset(
    ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64")
)
SAID = "said.txt"  # in the worker's folder: what the package prints
_LONGEST = 2**24  # bytes of a header: far more than any file has names

Frame = tuple[dict[str, Any], dict[str, np.ndarray]]


def encoded(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> list[bytes]:
    """The pieces of a frame."""
    listed = [{"name": name, "dtype": a.dtype.name, "shape": list(a.shape)} for name, a in arrays.items()]
    head = json.dumps({**header, "arrays": listed}).encode()
    return [len(head).to_bytes(4, "big"), head, *(array.tobytes() for array in arrays.values())]


def write(stream: BinaryIO, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Send a frame."""
    for piece in encoded(header, arrays):
        stream.write(piece)
    stream.flush()


def read(stream: BinaryIO) -> Frame | None:
    """The next frame, None at the end of the stream. Raises ValueError where there is something else, EOFError where
    it breaks off.
    """
    start = stream.read(4)
    if not start:
        return None
    length = int.from_bytes(start, "big")
    if length > _LONGEST:
        raise ValueError("no frame begins here")
    header = json.loads(_exactly(stream, length))
    return header, {entry["name"]: _array(stream, entry) for entry in header.pop("arrays")}


def _array(stream: BinaryIO, entry: Mapping[str, Any]) -> np.ndarray:
    if entry["dtype"] not in DTYPES:
        raise ValueError(f"an array of {entry['dtype']}")
    dtype, shape = np.dtype(entry["dtype"]), tuple(int(size) for size in entry["shape"])
    return np.frombuffer(_exactly(stream, dtype.itemsize * math.prod(shape)), dtype).reshape(shape)


def _exactly(stream: BinaryIO, size: int) -> bytearray:
    content = bytearray()
    while len(content) < size:
        piece = stream.read(size - len(content))
        if not piece:
            raise EOFError("a frame breaks off")
        content += piece
    return content
