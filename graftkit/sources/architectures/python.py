"""`package.module:factory`: a function that returns a module, a Module class, or a module."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from torch import nn

from graftkit.core.errors import SourceError, did_you_mean
from graftkit.core.importing import importable
from graftkit.sources.architectures.made import Made, Order
from graftkit.sources.permission import forbidden
from graftkit.sources.pickle_safety import first_line, listed
from graftkit.sources.weights import fill

_SPEC = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
_FILE_SPEC = re.compile(r"(?P<file>.+)\.py:(?P<factory>\w+)")
_KEYWORD = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclass(frozen=True)
class PythonFactory:
    """Naming one on the command line is trusting it: its module is imported, with the current folder importable."""

    name: ClassVar[str] = "factory"

    def recognises(self, spec: str) -> bool:
        return names_a_factory(spec)

    def make(self, order: Order) -> Made:
        module_name, _, factory = order.spec.partition(":")
        if forbidden(f"{module_name}.{factory}"):
            raise SourceError(
                f"{order.spec} names Python's own library, or a package that runs any code, and no architecture; if the"
                " module is your own, give it another name"
            )
        with importable(Path.cwd()):
            found = _find(_import(module_name, order.spec), factory, order.spec)
            arguments, taken = _arguments(found, order)
            model = _make(found, arguments, order.spec)
        if order.weights is None:
            untrained = "no --weights were given: training begins with the weights that the factory makes"
            return Made(model, factory, None, (untrained,))
        said = fill(model, order.weights, order.spec)
        return Made(model, factory, order.weights, (*taken, *said))


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


def _arguments(found: Any, order: Order) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What to call it with, and a line on what of that comes from the checkpoint."""
    given = dict(order.arguments)
    parameters = _parameters(found)
    if parameters is None:
        return given, ()
    names = [name for name, parameter in parameters.items() if parameter.kind in _KEYWORD]
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    unknown = [name for name in given if name not in names]
    if unknown and not open_ended:
        takes = f"takes {', '.join(names)}" if names else "takes none"
        raise SourceError(f"{order.spec} has no argument {unknown[0]!r}; it {takes}.{did_you_mean(unknown[0], names)}")
    more = _from_checkpoint(order, given, names, everything=open_ended and _is_lightning(found))
    told = listed([f"{name}={value!r}" for name, value in more.items()])
    line = f"the checkpoint says what {order.spec} was made with: {told}"
    return given | more, (line,) if more else ()


def _parameters(found: Any) -> Mapping[str, inspect.Parameter] | None:
    """The parameters of what is to be called; None where it is not called, or does not say."""
    if isinstance(found, nn.Module) or not callable(found):
        return None
    try:
        return inspect.signature(found).parameters
    except (TypeError, ValueError):
        return None


def _from_checkpoint(order: Order, given: Container[str], names: Container[str], *, everything: bool) -> dict[str, Any]:
    """The hyper-parameters that a checkpoint keeps, as far as they are arguments, and were not given."""
    kept = order.weights.hyper_parameters if order.weights else {}
    return {name: value for name, value in kept.items() if name not in given and (everything or name in names)}


def _is_lightning(found: Any) -> bool:
    """Whether it is the class whose arguments such a checkpoint keeps; known by name, Lightning may not be here."""
    return isinstance(found, type) and any(base.__name__ == "LightningModule" for base in found.__mro__)


def _make(found: Any, arguments: Mapping[str, Any], spec: str) -> nn.Module:
    if isinstance(found, nn.Module):
        if arguments:
            raise SourceError(f"{spec} is a module already, which takes no --arch-args")
        return found
    if not callable(found):
        raise SourceError(
            f"{spec} is of type {type(found).__name__}, neither an nn.Module nor a function that returns one"
        )
    try:
        made = found(**arguments)
    except (Exception, SystemExit) as error:  # foreign code
        called = f"with {', '.join(arguments)}" if arguments else "without arguments"
        raise SourceError(
            f"{spec} raised {first_line(error)}; it is called {called} (--arch-args name=value gives more)"
        ) from error
    if not isinstance(made, nn.Module):
        raise SourceError(f"{spec} returned something of type {type(made).__name__}, not an nn.Module")
    return made
