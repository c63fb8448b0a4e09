"""The opcodes of a pickle, told without running any, as many as a model may have."""

from __future__ import annotations

import _compat_pickle
import pickletools
from collections.abc import Iterator
from typing import Any

from graftkit.core.errors import SourceError

# A tensor takes some thirty, a layer some two hundred; a pickle of sixty megabytes could hold as many opcodes.
MOST_OPCODES = 1_500_000


class TooManyError(ValueError):
    """Says how many opcodes there are, as the end of a message."""


def opcodes(pickled: Any) -> Iterator[tuple[str, Any]]:
    """Name and argument of each opcode in the bytes, or in a file up to the pickle's end.

    Raises TooManyError, and whatever bytes that are no pickle provoke.
    """
    for count, (opcode, argument, _) in enumerate(pickletools.genops(pickled)):
        if count >= MOST_OPCODES:
            raise TooManyError(f"holds over {MOST_OPCODES} opcodes, more than any model's pickle; do not use this file")
        yield opcode.name, argument


def refuse_endless(pickled: bytes, where: str) -> None:
    """Raise SourceError where there are too many to walk; what else is wrong with them is told by others."""
    try:
        for _ in opcodes(pickled):
            pass
    except TooManyError as error:
        raise SourceError(f"{where} {error}") from error
    except Exception:  # pickletools meets foreign bytes here, and raises whatever they provoke
        return


def python3_name(module: str, name: str = "") -> str:
    """The whole name as Python 3 finds it: protocol 2, which torch.save writes, keeps Python 2's."""
    module, name = _compat_pickle.NAME_MAPPING.get((module, name), (module, name))
    return f"{_compat_pickle.IMPORT_MAPPING.get(module, module)}.{name}"
