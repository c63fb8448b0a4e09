"""The `factory` format: `package.module:factory` gives the architecture, `--weights` the numbers."""

from __future__ import annotations

import importlib
import pkgutil
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from torch import nn

from graftkit.contracts import LoadedModel, SourceRequest
from graftkit.core.errors import SourceError, did_you_mean
from graftkit.core.importing import importable
from graftkit.sources.files import sha256_of
from graftkit.sources.pickle_safety import first_line
from graftkit.sources.weights import fill

_SPEC = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
_FILE_SPEC = re.compile(r"(?P<file>.+)\.py:(?P<factory>\w+)")


@dataclass(frozen=True)
class Factory:
    """A callable that returns an nn.Module, a Module class without arguments, or a Module.

    Naming one on the command line is trusting it: its module is imported, with the current folder importable.
    """

    name: ClassVar[str] = "factory"

    def recognises(self, request: SourceRequest, head: bytes) -> bool:
        return not head and names_a_factory(request.spec)

    def load(self, request: SourceRequest) -> LoadedModel:
        module_name, _, factory = request.spec.partition(":")
        with importable(Path.cwd()):
            found = _find(_import(module_name, request.spec), factory, request.spec)
            model = _make(found, request.spec)
        if request.weights is not None:
            fill(model, request.weights, request.spec)
        untrained = "no --weights were given: the weights that the factory makes are taken as trained"
        return LoadedModel(model, self._provenance(request), factory, () if request.weights else (untrained,))

    def _provenance(self, request: SourceRequest) -> dict[str, Any]:
        weights = request.weights
        return {
            "factory": request.spec,
            "format": self.name,
            "weights": None if weights is None else str(weights),
            "sha256": None if weights is None else sha256_of(weights),
            "trust": request.trust,
        }


def names_a_factory(spec: str) -> bool:
    """Whether the text is `package.module:factory`. Raises SourceError for `file.py:factory`."""
    if Path(spec).exists():
        return False
    written = _FILE_SPEC.fullmatch(spec)
    if written:
        dotted = written["file"].replace("\\", "/").removeprefix("./").replace("/", ".").lstrip(".")
        raise SourceError(f"{spec}: name the module, not its file: {dotted}:{written['factory']}")
    return bool(_SPEC.fullmatch(spec))


def _import(module: str, spec: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = str(error.name)
        if module == missing or module.startswith(missing + "."):
            raise SourceError(
                f"{spec}: there is no module {missing} here; run from the folder it is in, or put that on PYTHONPATH."
                f"{did_you_mean(missing, _modules_here(missing))}"
            ) from error
        raise SourceError(f"{spec}: {module} needs the module {missing}, which is not installed") from error
    except (Exception, SystemExit) as error:  # the module is foreign code, and may be a script
        raise SourceError(f"{spec}: importing {module} raised {first_line(error)}") from error


def _modules_here(missing: str) -> list[str]:
    parent, _, _ = missing.rpartition(".")
    # A parent is imported by now; it has a path if it is a package.
    paths = vars(sys.modules[parent]).get("__path__", ()) if parent else [str(Path.cwd())]
    return [f"{parent}.{found.name}".lstrip(".") for found in pkgutil.iter_modules(paths)]


def _find(module: ModuleType, factory: str, spec: str) -> Any:
    names = vars(module)
    if factory in names:
        return names[factory]
    public = [name for name, value in names.items() if callable(value) and not name.startswith("_")]
    raise SourceError(f"{spec}: {module.__name__} has no {factory}.{did_you_mean(factory, public)}")


def _make(found: Any, spec: str) -> nn.Module:
    if isinstance(found, nn.Module):
        return found
    if not callable(found):
        raise SourceError(
            f"{spec} is of type {type(found).__name__}, neither an nn.Module nor a function that returns one"
        )
    try:
        made = found()
    except (Exception, SystemExit) as error:  # foreign code
        raise SourceError(f"{spec} raised {first_line(error)}; it is called without arguments") from error
    if not isinstance(made, nn.Module):
        raise SourceError(f"{spec} returned something of type {type(made).__name__}, not an nn.Module")
    return made
