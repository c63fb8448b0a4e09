"""What lies in a zip archive that torch.save wrote, told without unpickling any of it."""

from __future__ import annotations

import pickletools
from pathlib import Path

import torch

from graftkit.core.errors import SourceError
from graftkit.sources.files import ZIP_MAGIC, refuse_bomb, zip_members

_PICKLE_LIMIT = 64 * 2**20  # a pickle holds structure; the numbers are in other members
_MAPPINGS = frozenset({"collections OrderedDict", "collections defaultdict"})
_LAYERS = b"torch.nn.modules."


def is_torch_zip(path: Path, head: bytes) -> bool:
    """Whether torch.save wrote it: TorchScript archives hold the same pickle, and code besides."""
    if not head.startswith(ZIP_MAGIC):
        return False
    members = zip_members(path)
    return "data.pkl" in members and "constants.pkl" not in members and not any(m.startswith("code/") for m in members)


def structure(path: Path) -> bytes:
    """The archive's pickle, of a size that makes sense. Raises SourceError."""
    members = zip_members(path)
    if members.get("data.pkl", 0) > _PICKLE_LIMIT:
        raise SourceError(f"{path} holds a pickle of {members['data.pkl']} bytes, which no model needs; do not use it")
    refuse_bomb(path, members, where=str(path))
    return _record(path, "data.pkl")


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


def _record(path: Path, name: str) -> bytes:
    """A member as torch itself will read it: another zip reader could be shown another member."""
    try:
        reader = torch._C.PyTorchFileReader(str(path))
        return bytes(reader.get_record(name))
    except (RuntimeError, ValueError) as error:  # a member's name may be no text
        raise SourceError(f"{path} is damaged; copy or download it again") from error
