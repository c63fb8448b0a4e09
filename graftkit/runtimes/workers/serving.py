"""What every Python worker does: answer frames on standard input until it ends."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import frames
import numpy as np
from frames import SAID

Run = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]
Load = Callable[[Path, Mapping[str, Any]], Run]  # (the ONNX file, what was asked for) -> outputs by name, in order


def serve(version: Callable[[], str], load: Load) -> None:
    """Answer "version", "open", "run" and "seconds"; what goes wrong is answered, too, as a line."""
    own = os.fdopen(os.dup(1), "wb")
    _printed_aside()
    run: list[Run] = []
    while (frame := frames.read(sys.stdin.buffer)) is not None:
        begun = Path(SAID).stat().st_size
        try:
            _answer(own, frame, run, version, load)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            missing = isinstance(error, ImportError)
            frames.write(own, {"error": reason, "said": _since(begun), "missing": missing}, {})


def _answer(own: BinaryIO, frame: frames.Frame, run: list[Run], version: Callable[[], str], load: Load) -> None:
    header, arrays = frame
    match header["do"]:
        case "version":
            frames.write(own, {"version": version()}, {})
        case "open":
            Path("model.onnx").write_bytes(arrays["model"].tobytes())
            run[:] = [load(Path("model.onnx"), header)]
            frames.write(own, {}, {})
        case "run":
            frames.write(own, {}, run[0](arrays))
        case "seconds":
            frames.write(own, {"seconds": [_timed(run[0], arrays) for _ in range(header["times"])]}, {})
        case other:
            raise ValueError(f"asked for {other!r}")


def _timed(run: Run, arrays: dict[str, np.ndarray]) -> float:
    begun = time.perf_counter()
    run(arrays)
    return time.perf_counter() - begun


def _printed_aside() -> None:
    """What packages print, from C++ too, goes to a file: standard output is for frames."""
    aside = os.open(SAID, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(aside, 1)
    os.dup2(aside, 2)


def _since(begun: int) -> str:
    with Path(SAID).open("rb") as file:
        file.seek(begun)
        return file.read(20_000).decode(errors="replace")
