"""What lies in a zip archive that torch.save wrote, told without unpickling any of it."""

from __future__ import annotations

import os
import pickletools
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import torch

from graftkit.core.errors import SourceError
from graftkit.sources.files import READER_ERRORS, ZIP_MAGIC, record_sizes, refuse_bomb, zip_members

_PICKLE_LIMIT = 64 * 2**20  # a pickle holds structure; the numbers are in other members
_MAPPINGS = frozenset({"collections OrderedDict", "collections defaultdict"})
_LAYERS = b"torch.nn.modules."


def is_torch_zip(path: Path, head: bytes) -> bool:
    """Whether torch.save wrote it: TorchScript archives hold the same pickle, and code besides."""
    if not head.startswith(ZIP_MAGIC):
        return False
    members = zip_members(path)
    return "data.pkl" in members and "constants.pkl" not in members and not any(m.startswith("code/") for m in members)


def structure(file: Path | IO[bytes], where: str = "") -> bytes:
    """The archive's pickle, of a size that makes sense. Raises SourceError."""
    where = where or str(file)
    size = file.stat().st_size if isinstance(file, Path) else file.seek(0, os.SEEK_END)
    members = zip_members(file)
    _check_sizes(members, size, where)
    # As torch itself will read it: another zip reader could be shown other members.
    try:
        reader = torch._C.PyTorchFileReader(str(file) if isinstance(file, Path) else _rewound(file))
        _check_sizes(record_sizes(reader, members), size, where)
        return bytes(reader.get_record("data.pkl"))
    except READER_ERRORS as error:
        raise SourceError(f"{where} is damaged; copy or download it again") from error


def _check_sizes(members: Mapping[str, int], size: int, where: str) -> None:
    if members.get("data.pkl", 0) > _PICKLE_LIMIT:
        raise SourceError(f"{where} holds a pickle of {members['data.pkl']} bytes, which no model needs; do not use it")
    refuse_bomb(size, members, where=where)


def _rewound(file: IO[bytes]) -> IO[bytes]:
    file.seek(0)
    return file


def holds_a_mapping(path: Path, *, layers: bool) -> bool:
    """Whether the archive holds a dict, as checkpoints are; with `layers` also one that mentions torch.nn's modules."""
    try:
        pickled = structure(path)
        return _starts_a_mapping(pickled) and (layers or _LAYERS not in pickled)
    except (SourceError, ValueError):
        return False


def _starts_a_mapping(pickled: bytes) -> bool:
    """Whether the first thing that the pickle makes is a dict."""
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name in ("PROTO", "FRAME", "MARK"):
            continue
        return opcode.name in ("EMPTY_DICT", "DICT") or (opcode.name == "GLOBAL" and argument in _MAPPINGS)
    return False
