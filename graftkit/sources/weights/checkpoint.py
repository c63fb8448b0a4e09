"""Reads a torch.save file for the tensors in it: of everything else in there, no class is imported and nothing runs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.serialization import safe_globals

from graftkit.core.errors import SourceError
from graftkit.core.importing import importable
from graftkit.sources.allowed_globals import allowed_objects
from graftkit.sources.files import ZIP_MAGIC, read_head
from graftkit.sources.permission import found_objects
from graftkit.sources.pickle_opcodes import refuse_endless
from graftkit.sources.pickle_safety import hostile, listed, load_restricted
from graftkit.sources.torch_zip import structure

Named = tuple[Callable[..., Any], str]
_MARK = "graftkit_left_out"
_HINT = "save the weights alone, as torch.save(model.state_dict(), path)"


class LeftOut:
    """Stands in for an object whose class was not imported; takes any state, and keeps none of it."""

    def __new__(cls, *args: Any) -> LeftOut:
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        pass


class LeftOutMapping:
    """The same where the class may be a mapping: torch puts items into nothing but an OrderedDict or a dict."""

    def __new__(cls, *args: Any) -> OrderedDict[Any, Any]:  # type: ignore[misc]
        made: OrderedDict[Any, Any] = OrderedDict()
        made.__dict__[_MARK] = True
        return made


def read_checkpoint(path: Path, allow: Sequence[str]) -> tuple[Any, tuple[str, ...]]:
    """What the file holds, and the names that were left out. Raises SourceError.

    A checkpoint may bring settings, counters and optimizers of any class along: where the file names such a
    class, an empty object takes its place, so that the tensors can be had without it.
    """
    if not read_head(path).startswith(ZIP_MAGIC):  # the format from before torch 1.6, which cannot be told apart
        return load_restricted(path, str(path), hint=_HINT), ()
    refuse_endless(structure(path), str(path))
    with importable(Path.cwd()):
        objects = found_objects(allow)
    unknown = tuple(name for name in _unknown(path) if name not in allow)
    if beyond := tuple(name for name in unknown if hostile(name)):
        raise SourceError(
            f"{path} wants to import {listed(beyond)}, which no weights need and which can run any code; do not use it,"
            f" or {_HINT}"
        )
    found = _load(path, objects, unknown)
    if isinstance(found, LeftOut) or _MARK in getattr(found, "__dict__", ()):
        raise SourceError(
            f"{path} holds an object that names {listed(unknown)}, not a state dict; if it is a whole module, give it"
            " alone, without an architecture"
        )
    return found, unknown


def _load(path: Path, objects: Sequence[Named], unknown: Sequence[str]) -> Any:
    """The file with stand-ins for what is unknown: mappings, or where an object's state does not fit those, none."""
    numbers = [(LeftOut, name) for name in unknown if name.startswith("numpy.")]
    others = [name for name in unknown if not name.startswith("numpy.")]
    try:
        mappings = [(LeftOutMapping, name) for name in others]
        return load_restricted(path, str(path), (*objects, *numbers, *mappings), hint=_HINT)
    except SourceError:
        if not others:
            raise
        plain = [(LeftOut, name) for name in others]
        return load_restricted(path, str(path), (*objects, *numbers, *plain), hint=_HINT)


def _unknown(path: Path) -> list[str]:
    """The names that torch's restricted unpickler would refuse."""
    try:
        with safe_globals(allowed_objects()):
            return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # what its scan does not understand, its unpickler will refuse with a reason
        return []
