"""Reads the values of `--arch-args name=value`: what a text stands for as a Python value."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from graftkit.core.errors import SourceError

_WORDS = {"true": True, "false": False, "none": None, "null": None}
_INTEGER = re.compile(r"[+-]?\d{1,4000}", re.ASCII)
_FLOAT = re.compile(r"[+-]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][+-]?\d+)?", re.ASCII)


def read_arguments(given: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """The arguments by name, each text as the value it stands for. Raises SourceError."""
    found: dict[str, Any] = {}
    for name, text in given:
        if not name.isidentifier():
            raise SourceError(f"--arch-args {name}={text}: {name!r} is no name of an argument")
        if name in found:
            raise SourceError(f"--arch-args gives {name} twice; give it once")
        found[name] = read_value(text, name) if isinstance(text, str) else text  # a program may give the value itself
    return found


def read_value(text: str, name: str = "value") -> Any:
    """A whole number, a number, true, false, none, JSON in brackets, a text in quotes; any other text is itself.

    Raises SourceError for brackets or quotes that hold something else.
    """
    plain = text.strip()
    if plain.lower() in _WORDS:
        return _WORDS[plain.lower()]
    if _INTEGER.fullmatch(plain):
        return int(plain)
    if _FLOAT.fullmatch(plain):
        return float(plain)
    if plain[:1] in ("[", "{"):
        return _json(plain, name)
    if plain[:1] in ("'", '"'):
        return _quoted(plain, name)
    return text


def _json(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SourceError(
            f'--arch-args {name}={text[:80]}: what is in brackets has to be JSON, as [3, 32] or ["a", "b"]'
        ) from error


def _quoted(text: str, name: str) -> str:
    """What is in the quotes: double ones as JSON has them, single ones as the shell does, without escapes."""
    found: Any = None
    if text[0] == "'":
        found = text[1:-1] if len(text) > 1 and text[-1] == "'" and text.count("'") == 2 else None
    else:
        with suppress(ValueError):
            found = json.loads(text)
    if not isinstance(found, str):
        raise SourceError(f"--arch-args {name}={text[:80]}: the quotes do not close, or hold more than one text")
    return found
