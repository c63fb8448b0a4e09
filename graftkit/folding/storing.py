"""Writes a model to disk: one file, or one file and its large weights beside it, streamed from where they are."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx

from graftkit.core.atomic import renamed_at_the_end
from graftkit.core.errors import RunError
from graftkit.folding.wire import write_whole
from graftkit.folding.written import ONE_FILE, Written, is_apart, location, pieces

_ALIGNED = 2**16  # what every system can map into memory at any such offset
_DATA_FILE = re.compile(r"(?P<stem>.+)-[0-9a-f]{16}\.data")


@contextmanager
def staged(model: Written, path: str | Path, *, one_file: int = ONE_FILE) -> Iterator[Path]:
    """The model as a file beside `path`, to be looked at; at the end of the block it is renamed to `path`.

    A model of more than `one_file` bytes has its weights in a file `STEM-HASH.data` beside it, called after its
    content, so that an earlier model keeps its own weights up to the moment it is replaced. Where the block fails,
    nothing new is left.

    Raises:
        RunError: it cannot be written.
    """
    target = Path(path)
    with _weights_beside(model, target, apart=model.nbytes() > one_file) as content:
        earlier = data_files(target)
        with renamed_at_the_end(target) as draft:
            _write(draft, content, target)
            yield draft
        for old in earlier - _beside(content.proto, target):
            with suppress(OSError):
                old.unlink()


def data_files(path: Path) -> frozenset[Path]:
    """The files, written by `staged`, that hold the weights of the model at `path`; none where it cannot be read."""
    try:
        if not any(is_data_file(file.name, path) for file in path.parent.iterdir()):
            return frozenset()
        model = onnx.load(str(path), load_external_data=False)
    except Exception:  # no file, or none of ours: protobuf and the file system each have their own errors
        return frozenset()
    return frozenset(file for file in _beside(model, path) if is_data_file(file.name, path))


def is_data_file(name: str, path: Path) -> bool:
    """Whether `name` is what `staged` calls the weights of the model at `path`."""
    match = _DATA_FILE.fullmatch(name)
    return match is not None and match["stem"] == path.stem


def _beside(model: onnx.ModelProto, path: Path) -> frozenset[Path]:
    names = {location(tensor) for tensor in model.graph.initializer if is_apart(tensor)}
    return frozenset(path.with_name(name) for name in names if name and Path(name).name == name)


@contextmanager
def _weights_beside(model: Written, target: Path, *, apart: bool) -> Iterator[Written]:
    """What goes into the file itself; its weights are written beside it first, and go again where the block fails."""
    if not apart:
        yield model
        return
    earlier = data_files(target)
    data, proto = _write_weights(model, target)
    try:
        yield Written(proto)
    except BaseException:
        if data not in earlier:
            data.unlink(missing_ok=True)
        raise


def _write_weights(model: Written, target: Path) -> tuple[Path, onnx.ModelProto]:
    """Stream the weights into a file called after their content; that file, and the model that refers to it."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    digest = hashlib.sha256()
    unnamed = target.with_name(f".{target.name}.{os.getpid()}.data")
    places: dict[str, tuple[int, int]] = {}
    try:
        with unnamed.open("wb") as file:
            for tensor, load in model.apart():
                if location(tensor) not in places:
                    places[location(tensor)] = _append(file, load(), digest)
            file.flush()
            os.fsync(file.fileno())
        data = target.with_name(f"{target.stem}-{digest.hexdigest()[:16]}.data")
        unnamed.replace(data)
    except OSError as error:
        raise RunError(f"{target} cannot be written: {error.strerror or error}") from error
    finally:
        unnamed.unlink(missing_ok=True)
    for tensor in [tensor for tensor in proto.graph.initializer if is_apart(tensor)]:
        _refer(tensor, data.name, *places[location(tensor)])
    return data, proto


def _write(draft: Path, model: Written, target: Path) -> None:
    try:
        with draft.open("wb") as file:
            if model.weights:
                write_whole(file, model)
            else:
                file.write(model.proto.SerializeToString())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise RunError(f"{target} cannot be written: {error.strerror or error}") from error


def _append(file: BinaryIO, values: np.ndarray, digest: hashlib._Hash) -> tuple[int, int]:
    """Write numbers at the next round offset, a few at a time. Returns (offset, bytes)."""
    gap = bytes(-file.tell() % _ALIGNED)
    file.write(gap)
    digest.update(gap)
    start = file.tell()
    for piece in pieces(values):
        file.write(piece)
        digest.update(piece)
    return start, file.tell() - start


def _refer(tensor: onnx.TensorProto, name: str, offset: int, length: int) -> None:
    del tensor.external_data[:]
    for key, value in (("location", name), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))
