"""The way to a runtime that is elsewhere, and a session over it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from graftkit.core.errors import ExportError, MismatchError
from graftkit.runtimes.described import Described, Value
from graftkit.runtimes.ports import shapes, telling_line
from graftkit.runtimes.workers.frames import DTYPES, Frame

__all__ = ["Channel", "Elsewhere", "Frame", "Lost", "Refused", "opened", "reply"]


class Refused(Exception):
    """What the other side says went wrong; `missing`: it has not got the package."""

    def __init__(self, message: str, *, missing: bool = False):
        super().__init__(message)
        self.missing = missing


class Lost(Refused):
    """The other side is gone."""


class Channel(Protocol):
    """Frames there and back."""

    def ask(self, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Frame:
        """Its answer. Raises Refused."""

    def close(self) -> None:
        """End the other side; twice does no harm."""


def reply(frame: Frame) -> Frame:
    """An answer, or the Refused that it is. What a package printed counts where it says more than its exception."""
    header, _ = frame
    if "error" in header:
        why = why_of(str(header.get("said", ""))) or telling_line(header["error"])
        raise Refused(why, missing=bool(header.get("missing")))
    return frame


def why_of(printed: str) -> str:
    """The line of what a package printed that says why it fails, empty where none does."""
    words = ("not support", "error", "unsupported", "can't", "cannot", "not implemented", "not exists", "unwrap()")
    telling = (line for line in printed.splitlines() if any(word in line.lower() for word in words))
    return re.sub(r"^\[[\d:]+\]( :\d+:)? *", "", next(telling, "")).strip()  # without the time of day


@dataclass(eq=False)
class Elsewhere:
    """A file that a runtime in another process has loaded."""

    channel: Channel
    file: Described

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        _, arrays = self._asked({"do": "run"}, inputs)
        return self.file.typed([arrays[value.name] for value in self.file.outputs])

    def seconds(self, inputs: Mapping[str, np.ndarray], times: int) -> list[float]:
        header, _ = self._asked({"do": "seconds", "times": times}, inputs)
        return [float(value) for value in header["seconds"]]

    def close(self) -> None:
        self.channel.close()

    def _asked(self, header: Mapping[str, Any], inputs: Mapping[str, np.ndarray]) -> Frame:
        given = self.file.check(inputs)
        named = {value.name: array for value, array in zip(self.file.inputs, given, strict=True)}
        try:
            return self.channel.ask(header, named)
        except Refused as error:
            raise MismatchError(f"{self.file.runtime} fails on {shapes(inputs)}: {telling_line(error)}") from error


def opened(channel: Channel, file: Described, threads: int | None) -> Elsewhere:
    """A session, once the other side has loaded the file. Raises ExportError, and ends the other side."""
    asked = {
        "do": "open",
        "name": file.name,
        "threads": threads,
        "inputs": [_told(value) for value in file.inputs],
        "outputs": [value.name for value in file.outputs],
    }
    try:
        for value in (*file.inputs, *file.outputs):
            if value.dtype.name not in DTYPES:
                raise Refused(f"{value.name!r} is of {value.dtype}, which nothing but numbers of usual sizes is")
        channel.ask(asked, {"model": np.frombuffer(file.content, np.uint8)})
    except Refused as error:
        channel.close()
        raise ExportError(f"{file.runtime} does not load the file: {telling_line(error)}") from error
    return Elsewhere(channel, file)


def _told(value: Value) -> dict[str, Any]:
    return {"name": value.name, "dtype": value.dtype.name, "shape": value.shape and list(value.shape)}
