"""The `pickle` format: a whole `nn.Module` that torch.save wrote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from graftkit.contracts import LoadedModel, SourceRequest
from graftkit.core.errors import SourceError
from graftkit.core.importing import importable
from graftkit.sources.files import ZIP_MAGIC, refuse_bomb, sha256_of, zip_members
from graftkit.sources.pickle_safety import (
    TRUST_HINT,
    first_line,
    load_in_full,
    load_restricted,
    one_line,
    refuse_strangers,
)

_LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # what torch.save wrote first before torch 1.6
_PICKLE_LIMIT = 64 * 2**20  # a pickle holds structure; the numbers are in other members


@dataclass(frozen=True)
class Pickled:
    """`.pt` and `.pth`: read without trust where it needs torch.nn's own classes only."""

    name: ClassVar[str] = "pickle"

    def recognises(self, request: SourceRequest, head: bytes) -> bool:
        if not head.startswith(ZIP_MAGIC):
            return len(head) > 1 and head[0] == 0x80 and head[1] <= 5
        members = zip_members(Path(request.spec))
        return (
            "data.pkl" in members and "constants.pkl" not in members and not any(m.startswith("code/") for m in members)
        )

    def load(self, request: SourceRequest) -> LoadedModel:
        path = Path(request.spec)
        found = _load_trusted(path) if request.trust else _load_untrusted(path)
        if not isinstance(found, nn.Module):
            raise SourceError(f"{path} {_instead_of_a_module(found)}")
        provenance = {"path": request.spec, "format": self.name, "sha256": sha256_of(path), "trust": request.trust}
        return LoadedModel(found, provenance, path.stem)


def _load_untrusted(path: Path) -> Any:
    with path.open("rb") as file:
        head = file.read(len(_LEGACY_MAGIC))
    if not head.startswith(ZIP_MAGIC):
        raise SourceError(_old_format(path, head))
    members = zip_members(path)
    if members["data.pkl"] > _PICKLE_LIMIT:
        raise SourceError(f"{path} holds a pickle of {members['data.pkl']} bytes, which no model needs; do not use it")
    refuse_bomb(path, members, where=str(path))
    refuse_strangers(_record(path, "data.pkl"), str(path))
    return load_restricted(path, str(path))


def _record(path: Path, name: str) -> bytes:
    """A member as torch itself will read it: another zip reader could be shown another member."""
    try:
        reader = torch._C.PyTorchFileReader(str(path))
        return bytes(reader.get_record(name))
    except RuntimeError as error:
        raise SourceError(f"{path} is damaged; copy or download it again") from error


def _old_format(path: Path, head: bytes) -> str:
    if head.startswith(_LEGACY_MAGIC):
        return (
            f"{path} is in the format from before torch 1.6, which can run any code when loaded;"
            f" save it again with a newer torch.save, or {TRUST_HINT}"
        )
    return (
        f"{path} is a bare pickle, which can run any code when loaded, and not a file that torch.save wrote;"
        " save the model with torch.save"
    )


def _load_trusted(path: Path) -> Any:
    try:
        with importable(path.parent, Path.cwd()):
            return load_in_full(path)
    except ModuleNotFoundError as error:
        raise SourceError(
            f"{path} needs the module {error.name}, which is not importable here;"
            f" run from the folder with {str(error.name).split('.')[0]}, or put that folder on PYTHONPATH"
        ) from error
    except (AttributeError, ImportError) as error:
        raise SourceError(f"{path} needs a class that is not there: {_missing_class(str(error))}") from error
    except Exception as error:  # the file runs its own code here, which may raise anything
        raise SourceError(f"{path} cannot be loaded: {first_line(error)}") from error


def _missing_class(said: str) -> str:
    first = one_line(said) or "no further word"
    if "__main__" in first:
        return (
            f"{first}; it was defined in the script that saved it: move it to a module of its own and save again,"
            " or give package.module:factory with --weights"
        )
    return f"{first}; the source must be the version that the model was saved with"


def _instead_of_a_module(found: Any) -> str:
    if isinstance(found, Mapping) and found and all(isinstance(value, torch.Tensor) for value in found.values()):
        return "is a state dict, which holds weights but no architecture; give package.module:factory with --weights"
    if isinstance(found, Mapping):
        keys = one_line(", ".join(map(str, list(found)[:5]))) or "nothing"
        return f"holds a dict of {keys}, not an nn.Module; save the module itself, or give package.module:factory"
    return f"holds a {type(found).__name__}, not an nn.Module; save the module itself with torch.save"
