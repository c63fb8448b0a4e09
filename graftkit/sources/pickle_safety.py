"""Says what a pickle wants to import, and loads one with nothing but the allowed names.

Two walls: the scan gives the message, by reading opcodes without running any; torch's restricted
unpickler enforces, so that a file which fools the scan still cannot import anything else.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import torch
from torch.serialization import safe_globals

from graftkit.core.errors import SourceError
from graftkit.sources.allowed_globals import ALLOWED_GLOBALS, allowed_objects
from graftkit.sources.files import ZIP_MAGIC
from graftkit.sources.permission import forbidden, may_be_called
from graftkit.sources.pickle_calls import check_calls
from graftkit.sources.pickle_opcodes import TooManyError, opcodes, python3_name
from graftkit.sources.torch_zip import structure

TRUST_HINT = "if you trust whoever made it, pass --trust"
_PROTOCOL = b"\x80\x02"  # the one that torch.save writes, and that torch's restricted unpickler reads
_UNKNOWN = "a name that it computes while loading"
_SHOWN = 5
_LONGEST_NAME = 300
_LEGACY_PICKLES = 5  # behind one another in a file from before torch 1.6
_OPTIONS = 12  # of --allow that a message spells out
_LINE = 200

# Named first in a refusal, because they are not what a model needs.
_TELLING_NAMES = (
    "asyncio builtins code codeop ctypes functools importlib io marshal multiprocessing nt operator os pickle"
    " platform posix pty runpy shutil signal socket subprocess sys tempfile threading types urllib webbrowser"
)
_TELLING = frozenset(_TELLING_NAMES.split())
_STRINGS = frozenset(
    {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE", "STRING", "BINSTRING", "SHORT_BINSTRING"}
)
_GETS = frozenset({"GET", "BINGET", "LONG_BINGET"})
_PUTS = frozenset({"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"})
_EXTENSIONS = frozenset({"EXT1", "EXT2", "EXT4"})


def wanted_globals(pickled: bytes) -> tuple[str, ...]:
    """Fully qualified names that the pickle would import, in its order, each once.

    A name that cannot be known without running the pickle is given as words. Raises ValueError where the
    bytes are no pickle.
    """
    return tuple(dict.fromkeys(_walk(pickled)))


def strangers(pickled: bytes, also: frozenset[str] = frozenset()) -> tuple[str, ...]:
    """The names beyond the allowed ones and `also`, most telling first. Raises ValueError."""
    beyond = [name for name in wanted_globals(pickled) if name not in ALLOWED_GLOBALS | also]
    return tuple(sorted(beyond, key=lambda name: name.split(".")[0] not in _TELLING))


def refuse_strangers(
    pickled: bytes, where: str, also: frozenset[str] = frozenset(), *, allowable: bool = False
) -> None:
    """Raise SourceError where the pickle wants anything beyond the allowed names and `also`, or is damaged.

    With `allowable` the message names the `--allow` options that would let it pass, where those would be enough.
    """
    try:
        beyond = strangers(pickled, also)
    except TooManyError as error:
        raise SourceError(f"{where} {error}") from error
    except Exception as error:  # pickletools meets foreign bytes here, and raises whatever they provoke
        raise SourceError(f"{where} is damaged; copy or download it again") from error
    if beyond:
        hint = _options(pickled, beyond) if allowable else ""
        raise SourceError(
            f"{where} wants to import {listed(beyond)}, which can run any code when loaded; {hint}{TRUST_HINT}"
        )


def hostile(name: str) -> bool:
    """Whether no file of weights has a reason to name it: what runs code, and what reaches the machine."""
    return name.split(".")[0] in _TELLING and forbidden(name) and name != "functools.partial"


def load_restricted(
    file: Path | IO[bytes],
    where: str,
    objects: Sequence[tuple[Callable[..., Any], str]] = (),
    *,
    hint: str = TRUST_HINT,
) -> Any:
    """What the file of `torch.save` holds, built from allowed names alone and these objects under their names.

    Of the objects classes may be called; a function may be named, as a layer's activation is, but not called: through
    the arguments of many a library's function a file could run its own code.

    Raises SourceError, whose message ends with the hint.
    """
    for pickled, held in _pickles(file, where):
        check_calls(pickled, where, held, [name for kept, name in objects if may_be_called(kept, name)])
    try:
        with warnings.catch_warnings(), safe_globals([*allowed_objects(), *objects]):
            _quiet()
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a foreign file provokes is the file's fault
        raise SourceError(f"{where} cannot be loaded: {_reason(error)}; if the file is not damaged, {hint}") from error


def _pickles(file: Path | IO[bytes], where: str) -> Iterator[tuple[Any, int]]:
    """Each pickle that torch.load will read, and how many bytes the whole file holds."""
    if not isinstance(file, Path):
        yield structure(file, where), file.seek(0, os.SEEK_END)
        file.seek(0)
        return
    size = file.stat().st_size
    with file.open("rb") as opened:
        if opened.read(len(ZIP_MAGIC)) == ZIP_MAGIC:
            yield structure(file), size
            return
        opened.seek(0)
        for _ in range(_LEGACY_PICKLES):
            if opened.tell() < size:
                yield opened, size


def load_in_full(file: Path | IO[bytes]) -> Any:
    """What the file of `torch.save` holds; runs whatever code it brings."""
    with warnings.catch_warnings():
        _quiet()
        return torch.load(file, map_location="cpu", weights_only=False)


def first_line(error: BaseException) -> str:
    """The kind of an error and the first line of what it says."""
    said = one_line(str(error))
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def one_line(text: str) -> str:
    """The text's first line, shortened, without what a terminal would obey: it may come from a hostile file."""
    line = "".join(str(text).strip().splitlines()[:1])
    shown = "".join(sign if sign.isprintable() else "?" for sign in line)
    return shown if len(shown) <= _LINE else shown[:_LINE] + "..."


def _walk(pickled: bytes) -> Iterator[str]:
    """Follows the strings that may name a global: those just pushed, and those kept in the memo."""
    pushed: list[str] = []  # the strings on top of the stack, as far as they are known
    memo: dict[int, str | None] = {}
    for name, argument in opcodes(pickled):
        if name in _STRINGS:
            pushed.append(str(argument))
        elif name in _GETS and (kept := memo.get(_index(argument))) is not None:
            pushed.append(kept)
        elif name in _PUTS:
            memo[len(memo) if name == "MEMOIZE" else _index(argument)] = pushed[-1] if pushed else None
        elif name in ("FRAME", "PROTO"):
            continue
        else:
            if name in ("GLOBAL", "INST"):
                yield python3_name(*str(argument).split(" ", 1))
            elif name == "STACK_GLOBAL":
                yield python3_name(pushed[-2], pushed[-1]) if len(pushed) > 1 else _UNKNOWN
            elif name in _EXTENSIONS:
                yield _UNKNOWN
            pushed = []


def _index(argument: Any) -> int:
    return int(argument)


def listed(names: Sequence[str]) -> str:
    """The first names in words, fit to be shown on a terminal."""
    shown, more = [one_line(name) for name in names[:_SHOWN]], len(names) - _SHOWN
    if more > 0:
        return f"{', '.join(shown)} and {more} more"
    return " and ".join(filter(None, [", ".join(shown[:-1]), *shown[-1:]]))


def _options(pickled: bytes, beyond: Sequence[str]) -> str:
    """The options that would open these names, as the first part of a hint; empty where they are not enough."""
    too_long = any(len(name) > _LONGEST_NAME for name in beyond)
    if len(beyond) > _OPTIONS or too_long or any(map(forbidden, beyond)) or pickled[:2] != _PROTOCOL:
        return ""
    return f"if that is code you know, pass {' '.join(f'--allow {name}' for name in beyond)}; "


def _reason(error: Exception) -> str:
    """One line of an unpickler's refusal, which spends several on advice that is not for our users."""
    told = str(error).split("WeightsUnpickler error:")[-1].split("Check the documentation")[0]
    return one_line(told) or type(error).__name__


def _quiet() -> None:
    # A pickle of an older torch keeps typed storages; torch reads them, and warns about its own code.
    warnings.filterwarnings("ignore", message="TypedStorage is deprecated", category=UserWarning)
    # Refused right after, with a message of our own.
    warnings.filterwarnings("ignore", message="Detected pickle protocol", category=UserWarning)
