"""Says in a line why a model could not be traced, and which line of its code stands in the way."""

from __future__ import annotations

import linecache
import sysconfig
import traceback
from pathlib import Path

import torch

_TORCH = str(Path(torch.__file__).parent)
_OURS = str(Path(__file__).parents[1])
_STANDARD = sysconfig.get_paths()["stdlib"]
_LONGEST = 300
# What torch says of a cause, and what that means to whoever wrote the model.
_MEANINGS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("numpy()", ".numpy", "FakeTensor.*numpy"), "it leaves torch for numpy, which no graph can hold"),
    (
        ("data-dependent", "GuardOnDataDependent", "Could not guard", "Could not extract specialized"),
        "it decides by the values of a tensor what to do next, which no graph can hold",
    ),
    (("in the exported program constant",), "it writes into a tensor's .data, which no graph can hold"),
    (
        ("failed to unpack the object", "PackedSequence"),
        "it packs sequences of different lengths, which no graph can hold",
    ),
    (
        ("Constraints violated", "marked batch as dynamic", "specialized"),
        "it fixes its batch size, which has to stay free",
    ),
)


def reason(error: BaseException) -> str:
    """What went wrong, and the line of the model's code where it did."""
    text = str(error).strip()
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    first = lines[0][:_LONGEST] if lines else "no reason given"
    meaning = next((words for signs, words in _MEANINGS if any(sign in text for sign in signs)), None)
    said = f"{meaning} ({type(error).__name__}: {first})" if meaning else f"{type(error).__name__}: {first}"
    where = culprit(error)
    return said + (f" (at {where})" if where else "")


def culprit(error: BaseException) -> str:
    """`file.py, line 12: code` of the innermost frame that is neither torch's nor ours; "" where there is none."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        for frame in reversed(traceback.extract_tb(current.__traceback__)):
            if _is_models(frame.filename):
                code = frame.line or linecache.getline(frame.filename, frame.lineno or 0).strip()
                return f"{frame.filename}, line {frame.lineno}: {code[:120]}"
        current = current.__cause__ or current.__context__
    return ""


def _is_models(filename: str) -> bool:
    if filename.startswith(("<", _TORCH, _OURS)):
        return False
    return "site-packages" in filename or not filename.startswith(_STANDARD)
