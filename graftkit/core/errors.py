"""The errors graftkit raises on purpose, sorted by who can mend them.

GraftkitError
├── SourceError          the model file or factory
├── TraceError           a model that cannot be captured as graphs
│   └── CaptureError     the whole cannot be, a part of it may be
├── PlanError            what was asked to be grafted where
├── PruningError         a width that cannot shrink as asked
├── DataError            the rows, labels or their shapes
├── TrainingError        numbers that went wrong while training
├── ExportError          the ONNX file that was to be written
├── MismatchError        the ONNX file computes something else
├── RunError             a run folder
│   └── BusyError        another process works there
└── RuntimeMissingError  an optional package that is not installed
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GraftkitError(Exception):
    """Something the caller can mend. The message is one line: what is wrong, where, and what to do."""

    exit_code = 1


class SourceError(GraftkitError):
    """The model file or factory cannot be read as a model."""


class TraceError(GraftkitError):
    """The model cannot be captured as a pair of graphs."""


class CaptureError(TraceError):
    """The model runs, but as a whole it is no graph; a part of it may be."""


class PlanError(GraftkitError):
    """A graft that cannot be made: an unknown site, kind or option."""


class PruningError(GraftkitError):
    """The model cannot be made smaller as asked."""


class DataError(GraftkitError):
    """The data cannot be read, or do not fit the model."""


class TrainingError(GraftkitError):
    """Training produced numbers that cannot be used."""


class ExportError(GraftkitError):
    """The ONNX file that was asked for cannot be written."""


class MismatchError(GraftkitError):
    """The ONNX file does not compute what the trained model computes."""


class RunError(GraftkitError):
    """A run folder cannot be written, or is not what the command needs."""


class BusyError(RunError):
    """Another process works in the folder."""


class RuntimeMissingError(GraftkitError):
    """An optional package is not installed; the message names the extra that brings it."""


def shown(text: str, most: int = 600) -> str:
    """Text from a file as part of a message: one line, not too long, without what a terminal would obey."""
    plain = "".join(sign if sign.isprintable() else "?" for sign in " ".join(text.split()))
    return plain if len(plain) <= most else f"{plain[:most]}..."


def did_you_mean(word: str, known: Iterable[str], *, most: int = 3) -> str:
    """The closest known names as a clause to end a message with, or an empty string."""
    close = difflib.get_close_matches(word, list(known), n=most, cutoff=0.4)
    return f" Did you mean {' or '.join(close)}?" if close else ""
