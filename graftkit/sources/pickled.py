"""The `pickle` format: a whole `nn.Module` that torch.save wrote."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from graftkit.contracts import LoadedModel, SourceRequest
from graftkit.core.errors import SourceError
from graftkit.core.importing import importable
from graftkit.sources.files import ARCH_HINT, ZIP_MAGIC, sha256_of
from graftkit.sources.permission import found_objects
from graftkit.sources.pickle_safety import (
    TRUST_HINT,
    first_line,
    listed,
    load_in_full,
    load_restricted,
    one_line,
    refuse_strangers,
)
from graftkit.sources.torch_zip import is_torch_zip, structure

_LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # what torch.save wrote first before torch 1.6


@dataclass(frozen=True)
class Pickled:
    """`.pt` and `.pth`: read without trust where it needs torch.nn's own classes only, and those that are allowed."""

    name: ClassVar[str] = "pickle"

    def recognises(self, request: SourceRequest, head: bytes) -> bool:
        if not head.startswith(ZIP_MAGIC):
            return len(head) > 1 and head[0] == 0x80 and head[1] <= 5
        return is_torch_zip(Path(request.spec), head)

    def load(self, request: SourceRequest) -> LoadedModel:
        path = Path(request.spec)
        found = _load_trusted(path) if request.trust else _load_untrusted(path, request.allow)
        model, warnings = _module_in(found, path)
        provenance = {
            "path": request.spec,
            "format": self.name,
            "sha256": sha256_of(path),
            "trust": request.trust,
            "allow": list(request.allow),
        }
        return LoadedModel(model, provenance, path.stem, warnings)


def _load_untrusted(path: Path, allow: Sequence[str]) -> Any:
    with path.open("rb") as file:
        head = file.read(len(_LEGACY_MAGIC))
    if not head.startswith(ZIP_MAGIC):
        raise SourceError(_old_format(path, head))
    refuse_strangers(structure(path), str(path), frozenset(allow), allowable=True)
    # Behind everything else on the path: a file must not bring a module that hides an installed one.
    with importable(Path.cwd()):
        sys.path.append(str(path.resolve().parent))
        return load_restricted(path, str(path), found_objects(allow))


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


def _module_in(found: Any, path: Path) -> tuple[nn.Module, tuple[str, ...]]:
    """The module that was saved, or the one in a checkpoint that was."""
    if isinstance(found, nn.Module):
        return found, ()
    if isinstance(found, Mapping):
        modules = {str(key): value for key, value in found.items() if isinstance(value, nn.Module)}
        if len(modules) == 1 or "model" in modules:
            key = "model" if "model" in modules else next(iter(modules))
            return modules[key], (f"the model is the one under {key!r} in {path}, which holds {listed(list(found))}",)
    raise SourceError(f"{path} {_instead_of_a_module(found)}")


def _instead_of_a_module(found: Any) -> str:
    if isinstance(found, Mapping):
        keys = one_line(", ".join(map(str, list(found)[:5]))) or "nothing"
        return f"holds a dict of {keys}, not an nn.Module; save the module itself, or give its weights and {ARCH_HINT}"
    return f"holds a {type(found).__name__}, not an nn.Module; save the module itself with torch.save"
