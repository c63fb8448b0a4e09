"""Reads a file of dendrites: its facts and the outline of its tensors first, their numbers when all else fits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from graftkit.core.errors import SourceError, shown
from graftkit.dendrite_files.facts import KEY, Facts
from graftkit.dendrite_files.hashes import tensors_sha256


@dataclass(frozen=True, eq=False)
class DendriteFile:
    """A file of dendrites that is open.

    Attributes:
        path: of the file.
        bytes: in it.
        facts: what it says of itself.
        outline: (type, shape) of each tensor by name, the type as safetensors calls it.
        handle: safetensors' own.
    """

    path: Path
    bytes: int
    facts: Facts
    outline: Mapping[str, tuple[str, tuple[int, ...]]]
    handle: Any

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name. Raises SourceError where they are not those that were written, or no numbers."""
        found = {name: self.handle.get_tensor(name) for name in self.outline}
        if tensors_sha256(found) != self.facts.sha256:
            raise SourceError(f"{self.path} is broken: its tensors have another sha256 than it says; copy it again")
        for name, tensor in found.items():
            if not tensor.isfinite().all():
                raise SourceError(f"{self.path} is broken: {shown(name)} holds numbers that are none (NaN or infinite)")
        return found


@contextmanager
def opened(path: str | Path) -> Iterator[DendriteFile]:
    """A file of dendrites, open while inside; nothing in it is ever run. Raises SourceError."""
    place = Path(path)
    if not place.is_file():
        raise SourceError(f"there is no file {place}; give one that `graftkit export RUN --dendrites-only` wrote")
    try:
        handle = safe_open(place, framework="pt", device="cpu")
    except Exception as error:  # whatever a foreign file provokes is the file's fault
        raise SourceError(f"{place} is no safetensors file that can be read: {_reason(error)}") from error
    with handle:
        yield _read(place, handle)


def is_dendrite_file(path: str | Path) -> bool:
    """Whether a file is safetensors and says that it holds dendrites."""
    if not Path(path).is_file():
        return False
    try:
        with safe_open(Path(path), framework="pt", device="cpu") as handle:
            return KEY in (handle.metadata() or {})
    except Exception:  # any other file
        return False


def _read(path: Path, handle: Any) -> DendriteFile:
    told = (handle.metadata() or {}).get(KEY)
    if told is None:
        raise SourceError(f"{path} holds tensors, but no dendrites; `graftkit export RUN --dendrites-only` writes such")
    try:
        slices = {name: handle.get_slice(name) for name in handle.keys()}  # noqa: SIM118 - no mapping
        outline = {name: (str(part.get_dtype()), tuple(part.get_shape())) for name, part in slices.items()}
        return DendriteFile(path, path.stat().st_size, Facts.from_text(told), outline, handle)
    except Exception as error:  # as above; deep JSON exhausts the stack, too
        raise SourceError(f"{path} is no file of dendrites that can be read: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    return shown(
        str(error) if isinstance(error, ValueError) and str(error) else f"{type(error).__name__}: {error}", 200
    )
