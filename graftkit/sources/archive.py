"""The `pt2` format: an exported program that torch.export.save wrote."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, ClassVar

import torch
from torch.export import ExportedProgram

from graftkit.contracts import LoadedModel, SourceRequest
from graftkit.core.errors import SourceError
from graftkit.core.importing import importable
from graftkit.sources.archive_safety import check_archive
from graftkit.sources.files import READER_ERRORS, ZIP_MAGIC, record_sizes, refuse_bomb, sha256_of, zip_members
from graftkit.sources.pickle_safety import first_line

_Reader = Callable[[IO[bytes]], Any]  # gives what torch calls PT2ArchiveContents
_FORCE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


@dataclass(frozen=True)
class Archive:
    """`.pt2`: every text in it is checked before torch sees it, unless it is trusted."""

    name: ClassVar[str] = "pt2"

    def recognises(self, request: SourceRequest, head: bytes) -> bool:
        return head.startswith(ZIP_MAGIC) and "archive_format" in zip_members(Path(request.spec))

    def load(self, request: SourceRequest) -> LoadedModel:
        path = Path(request.spec)
        with path.open("rb") as file:
            if not request.trust:
                _check(file, path)
            # It takes seconds to import, and may not be looked for in a user's folder.
            from torch.export.pt2_archive._package import load_pt2

            own = importable(path.resolve().parent, Path.cwd()) if request.trust else _no_full_unpickling()
            with own:
                program = _program(file, path, load_pt2)
        provenance = {"path": request.spec, "format": self.name, "sha256": sha256_of(path), "trust": request.trust}
        return LoadedModel(program, provenance, path.stem)


def _check(file: IO[bytes], path: Path) -> None:
    """Refuse what would run code or fill the memory. Raises SourceError."""
    members = zip_members(path)
    refuse_bomb(path.stat().st_size, members, where=str(path))
    try:
        reader = torch._C.PyTorchFileReader(file)
        check_archive(reader, record_sizes(reader, members), str(path))
    except READER_ERRORS as error:
        raise SourceError(f"{path} is damaged; copy or download it again") from error


def _program(file: IO[bytes], path: Path, read: _Reader) -> ExportedProgram:
    """The one program inside. By `load_pt2`, because `torch.export.load` reads other formats when this one fails."""
    try:
        file.seek(0)
        programs: dict[str, ExportedProgram] = read(file).exported_programs
    except Exception as error:  # whatever a foreign file provokes is the file's fault
        raise SourceError(f"{path} cannot be loaded: {first_line(error)}") from error
    if len(programs) != 1:
        held = ", ".join(programs) or "none"
        raise SourceError(f"{path} must hold one exported program, and holds {held}; save one with torch.export.save")
    return next(iter(programs.values()))


@contextmanager
def _no_full_unpickling() -> Iterator[None]:
    """While inside, torch refuses to unpickle code, also where its own source asks for it.

    This is the wall behind the checks: torch.export falls back to full unpickling, and takes no argument
    that forbids it; the variable is the one switch that torch.load offers.
    """
    before = os.environ.get(_FORCE)
    os.environ[_FORCE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_FORCE]
        else:
            os.environ[_FORCE] = before
