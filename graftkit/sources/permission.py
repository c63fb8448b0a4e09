"""What `--allow` may open to a pickle: names that do what they say, never those through which any code runs."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

from graftkit.core.errors import SourceError, did_you_mean
from graftkit.sources.allowed_globals import ALLOWED_GLOBALS

_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")

# All of the standard library that may be allowed: containers and plain values. Everything else in it is refused.
_STANDARD_NAMES = {
    "_codecs": "encode",
    "argparse": "Namespace",
    "builtins": "bool bytearray bytes complex dict float frozenset int list object range set slice str tuple",
    "collections": "Counter OrderedDict defaultdict deque",
    "datetime": "date datetime time timedelta timezone",
    "decimal": "Decimal",
    "fractions": "Fraction",
    "pathlib": "Path PosixPath PurePath PurePosixPath PureWindowsPath WindowsPath",
    "pathlib._local": "Path PosixPath PurePath PurePosixPath PureWindowsPath WindowsPath",
    "types": "SimpleNamespace",
    "typing": "Any",
    "uuid": "UUID",
}
_STANDARD = frozenset(f"{module}.{name}" for module, names in _STANDARD_NAMES.items() for name in names.split())

# In these packages most functions load files, compile or fetch; the parts listed hold layers and plain values.
_PARTS: dict[str, tuple[str, ...]] = {
    "torch": ("torch.nn.", "torch.ao.nn.", "torch.optim.", "torch.Tensor", "torch.Generator", "torch.memory_format"),
    "numpy": (
        *("numpy.dtype", "numpy.dtypes.", "numpy.ndarray", "numpy.float", "numpy.int", "numpy.uint", "numpy.bool"),
        *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    ),
}
_CODE_RUNNING_PACKAGES = (
    "IPython __main__ cffi cloudpickle cppyy dill distutils execnet fabric fsspec graftkit huggingface_hub invoke"
    " jinja2 joblib jsonpickle llvmlite mako numba numexpr pandas paramiko pexpect pip pkg_resources plumbum"
    " pytest requests sh setuptools sympy triton wheel yaml"
)
_CODE_RUNNERS = frozenset(_CODE_RUNNING_PACKAGES.split())


def forbidden(name: str) -> bool:
    """Whether code of the file's own choosing could run through this name, so that no `--allow` opens it."""
    top = name.split(".", 1)[0]
    if not _NAME.fullmatch(name):
        return True
    if name in ALLOWED_GLOBALS:
        return False
    if top in sys.stdlib_module_names:
        return name not in _STANDARD
    if top in _PARTS:
        return not name.startswith(_PARTS[top])
    return top in _CODE_RUNNERS


def may_be_called(found: Callable[..., Any], name: str) -> bool:
    """Whether a pickle may call what `--allow` opened, not only name it: classes, and what makes plain values."""
    return isinstance(found, type) or name.split(".", 1)[0] in _PARTS or name in _STANDARD


def check_allowed(names: Sequence[str]) -> None:
    """Raise SourceError for the first name that cannot be allowed."""
    for name in names:
        if not _NAME.fullmatch(name):
            raise SourceError(f"--allow {name}: write the whole name of a class, as package.module.Class")
        if forbidden(name):
            raise _refused(name)


def found_objects(names: Sequence[str]) -> list[tuple[Callable[..., Any], str]]:
    """What the names stand for, with the names, as `torch.serialization.safe_globals` wants it.

    Imports the modules they are in. Raises SourceError where one is not there or turns out to be something else.
    """
    check_allowed(names)
    return [(_found(name), name) for name in names]


def _found(name: str) -> Callable[..., Any]:
    module_name, _, last = name.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # the module is the user's own code
        raise SourceError(f"--allow {name}: importing {module_name} raised {type(error).__name__}: {error}") from error
    found = getattr(module, last, None)
    if found is None:
        raise SourceError(f"--allow {name}: {module_name} has no {last}.{did_you_mean(last, vars(module))}")
    if not (isinstance(found, type) or inspect.isroutine(found)):
        raise SourceError(f"--allow {name}: that is of type {type(found).__name__}, not a class or a function")
    home = f"{found.__module__ or module_name}.{found.__qualname__}"
    if forbidden(home):  # one module may hold another's functions
        raise _refused(name)
    return found


def _refused(name: str) -> SourceError:
    return SourceError(
        f"--allow {name}: through that name a file can run any code, so it is not opened to one; if you trust whoever"
        " made the file, pass --trust"
    )
