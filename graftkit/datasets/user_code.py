"""Calls a function that the user named, and says in one line what went wrong in it."""

from __future__ import annotations

import importlib
import importlib.util
import random
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from graftkit.core.errors import DataError, GraftkitError, did_you_mean
from graftkit.core.importing import importable

_MODULE = "graftkit_user_data"
_SPEC = re.compile(r"(?P<place>.+\.py|[A-Za-z_]\w*(\.[A-Za-z_]\w*)*):(?P<function>[A-Za-z_]\w*)")


def is_function(spec: str) -> bool:
    """Whether it reads `file.py:function` or `package.module:function`."""
    return _SPEC.fullmatch(spec) is not None


def call_function(spec: str, *, seed: int) -> Any:
    """What the function returns, called without arguments and with every generator seeded.

    This runs the user's own code, which naming it on the command line trusts. Raises DataError.
    """
    match = _SPEC.fullmatch(spec)
    assert match is not None
    place, name = match["place"], match["function"]
    folder = Path(place).parent if place.endswith(".py") else Path()
    with importable(folder), seeded(seed):
        module = _import(place, spec)
        function = vars(module).get(name)
        if not callable(function):
            known = [word for word, value in vars(module).items() if callable(value)]
            raise DataError(f"--data {spec}: {place} has no function {name}.{did_you_mean(name, known)}")
        with blamed(spec):
            return function()


@contextmanager
def blamed(spec: str) -> Iterator[None]:
    """Turn an error that the user's code raises into one line: its type, message, file and line."""
    try:
        yield
    except GraftkitError:
        raise
    except (Exception, SystemExit) as error:
        message = error.msg if isinstance(error, SyntaxError) else " ".join(str(error).split())
        raise DataError(f"--data {spec}: {type(error).__name__}: {message} ({_place(error)})") from error


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed Python's, numpy's and torch's generators, so that a random split is the same the next time."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            random.seed(seed)
            np.random.seed(seed % 2**32)
            torch.manual_seed(seed)
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


def _import(place: str, spec: str) -> ModuleType:
    if place.endswith(".py"):
        return _import_file(Path(place), spec)
    try:
        with blamed(spec):
            return importlib.import_module(place)
    except DataError as error:
        cause = error.__cause__
        if isinstance(cause, ModuleNotFoundError) and cause.name and f"{place}.".startswith(f"{cause.name}."):
            raise DataError(
                f"--data {spec}: there is no module {cause.name}, neither here nor installed; give"
                " package.module:function or file.py:function"
            ) from cause
        raise


def _import_file(path: Path, spec: str) -> ModuleType:
    if not path.is_file():
        raise DataError(f"--data {spec}: there is no file {path}; check the path")
    found = importlib.util.spec_from_file_location(_MODULE, path.absolute())
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[_MODULE] = module  # dataclasses and workers look their own module up there
    with blamed(spec):
        found.loader.exec_module(module)
    return module


def _place(error: BaseException) -> str:
    """File and line where the user's code was last; for a syntax error, where that is."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith("<frozen")]
    own = [f for f in frames if _is_users(f.filename)] or frames
    return f"{own[-1].filename}, line {own[-1].lineno}"


def _is_users(filename: str) -> bool:
    ours = str(Path(__file__).parents[1])
    return "site-packages" not in filename and not filename.startswith((ours, sys.base_prefix, sys.prefix))
