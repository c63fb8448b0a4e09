"""What a file is, told from its content: its first bytes, its hash, and the members of a zip archive."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from graftkit.core.errors import SourceError

HEAD = 512
# What torch's zip reader raises: its own errors, a member's name that is no text, numbers in the archive that are none.
READER_ERRORS = (RuntimeError, ValueError, IndexError, OverflowError)
ZIP_MAGIC = b"PK\x03\x04"
# How to name the architecture of a file that holds weights alone.
ARCH_HINT = "--arch package.module:factory, --arch timm:NAME or --arch hf:FOLDER"
_READABLE = "give a model that torch.save or torch.export.save wrote, or weights and " + ARCH_HINT
# torch stores members as they are, so an archive that unpacks to much more than it holds is no model.
_GROWTH, _SLACK = 4, 64 * 2**20


def read_head(path: Path) -> bytes:
    """The file's first 512 bytes. Raises SourceError where there is no readable file."""
    if path.is_dir():
        hint = f"; for a transformers folder write hf:{path}" if (path / "config.json").is_file() else ""
        raise SourceError(f"{path} is a folder, not a model file; name the file in it{hint}")
    try:
        with path.open("rb") as file:
            return file.read(HEAD)
    except FileNotFoundError:
        raise SourceError(
            f"there is no file {path}; give the path of a model file, or package.module:factory"
        ) from None
    except (OSError, ValueError) as error:
        raise SourceError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def sha256_of(path: Path) -> str:
    """The file's SHA-256, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_all(files: Sequence[Path]) -> str:
    """The same of several files together: the hash of their hashes; one file's is its own."""
    hashes = [sha256_of(file) for file in files]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def zip_members(file: Path | IO[bytes]) -> Mapping[str, int]:
    """Unpacked sizes of an archive's members, named without the common root folder; empty if there is no zip.

    Of two members with one name it is the larger: readers may disagree about which counts.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            infos = [info for info in archive.infolist() if info.filename and not info.is_dir()]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return {}
    roots = {info.filename.split("/", 1)[0] for info in infos}
    cut = len(next(iter(roots))) + 1 if len(roots) == 1 else 0
    found: dict[str, int] = {}
    for info in infos:
        found[info.filename[cut:]] = max(info.file_size, found.get(info.filename[cut:], 0))
    return found


def record_sizes(reader: Any, members: Mapping[str, int]) -> Mapping[str, int]:
    """Unpacked sizes of what torch's own reader sees in an archive; another zip reader could be shown other members.

    Args:
        reader: a `torch._C.PyTorchFileReader`. Before torch 2.12 it tells no sizes.
        members: what `zip_members` sees in the same file; the sizes are then taken from there.

    Raises:
        SourceError: torch sees a member that is not among `members`, whose size nothing tells.
    """
    names = reader.get_all_records()
    if hasattr(reader, "get_record_size"):
        return {name: reader.get_record_size(name) for name in names}
    if hidden := set(names) - members.keys():
        raise SourceError(f"{min(hidden)!r} lies in the archive for some readers only; do not use this file")
    return {name: members[name] for name in names}


def refuse_bomb(size: int, members: Mapping[str, int], *, where: str) -> None:
    """Raise SourceError where the archive would unpack to far more than the `size` bytes that it holds."""
    unpacked = sum(members.values())
    if unpacked > _GROWTH * size + _SLACK:
        raise SourceError(f"{where} would unpack {size} bytes to {unpacked}, which no model file does; do not use it")


def refusal(path: Path, head: bytes) -> str:
    """What is wrong with a file that no source reads, and what to do instead, in one line."""
    for recognised, words in _FOREIGN:
        if recognised(path, head):
            return f"{path} {words}"
    return f"{path} is not a model file that graftkit knows; {_READABLE}"


def _is_text(path: Path, head: bytes) -> bool:
    text = head.decode("utf-8", errors="ignore")  # a character may be cut in two at the end of the head
    return len(text.encode()) >= len(head) - 3 and all(sign.isprintable() or sign.isspace() for sign in text)


def _is_torchscript(path: Path, head: bytes) -> bool:
    members = zip_members(path)
    return "constants.pkl" in members or any(name.startswith("code/") for name in members)


def _is_onnx(path: Path, head: bytes) -> bool:
    # A ModelProto starts with its field 1, the IR version, as a varint; another low field follows.
    return len(head) > 2 and head[0] == 0x08 and head[1] < 0x20 and head[2] in (0x12, 0x1A, 0x22, 0x32, 0x3A, 0x42)


_FOREIGN: tuple[tuple[Callable[[Path, bytes], bool], str], ...] = (
    (lambda path, head: not head, "is empty; copy or download it again"),
    (
        lambda path, head: head.startswith(b"version https://git-lfs"),
        "is a Git LFS pointer, not the file itself; run: git lfs pull",
    ),
    (
        lambda path, head: head.startswith(ZIP_MAGIC) and not zip_members(path),
        "is a zip archive that is cut short or damaged; copy or download it again",
    ),
    (
        _is_torchscript,
        "is a TorchScript archive, which holds a whole model; give it alone, without an architecture",
    ),
    (
        lambda path, head: "serialized_exported_program.json" in zip_members(path),
        "is an exported program of torch 2.7 or older; load and save it again with a newer torch",
    ),
    (
        lambda path, head: head.startswith(ZIP_MAGIC),
        "is a zip archive, but neither torch.save nor torch.export.save wrote it; " + _READABLE,
    ),
    (_is_text, "is a text file, not a model; " + _READABLE),
)


def looks_like_onnx(path: Path) -> bool:
    """Whether a file starts as an ONNX model does, or, where its start is damaged, is at least called like one."""
    head = read_head(path)
    return _is_onnx(path, head) or (path.suffix == ".onnx" and bool(head))
