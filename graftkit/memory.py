"""How much memory a file takes at most, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from graftkit.contracts import Feed

_RUNS = 3
_LIMIT = 600.0  # seconds

# Peaks come from /proc: what getrusage calls a process's peak begins with that of the one that started it.
_SCRIPT = """
import os, pathlib, sys
import numpy
from graftkit.runtimes import RUNTIMES
name, model, threads, runs, *pairs = sys.argv[1:]
session = RUNTIMES.find(name).open(pathlib.Path(model), threads=int(threads) or None)
given = {name: numpy.load(path) for name, path in zip(pairs[::2], pairs[1::2])}
for _ in range(int(runs)):
    session(given)
def peak(process):
    lines = pathlib.Path(f"/proc/{process}/status").read_text().splitlines()
    own = next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)
    children = pathlib.Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return own + sum(map(peak, children))
print(peak(os.getpid()))
session.close()
"""


@dataclass(frozen=True)
class Peaks:
    """Peak memory of files, beyond that of one that does nothing, which is measured once."""

    idle: dict[tuple[str, int | None], int | None] = field(default_factory=dict)

    def of(self, model: Path, feed: Feed, runtime: str, threads: int | None) -> int | None:
        """Bytes that loading and running it takes at most; None where the system does not tell."""
        key = (runtime, threads)
        if key not in self.idle:
            with tempfile.TemporaryDirectory() as folder:
                nothing = Path(folder) / "idle.onnx"
                nothing.write_bytes(_nothing().SerializeToString())
                self.idle[key] = _peak(nothing, {"x": np.zeros((1, 1), np.float32)}, runtime, threads)
        before, after = self.idle[key], _peak(model, feed, runtime, threads)
        return None if before is None or after is None else max(0, after - before)


def _peak(model: Path, feed: Feed, runtime: str, threads: int | None) -> int | None:
    if not sys.platform.startswith("linux"):
        return None
    with tempfile.TemporaryDirectory() as folder:
        given = [str(Path(folder) / f"{index}.npy") for index in range(len(feed))]
        for path, values in zip(given, feed.values(), strict=True):
            np.save(path, values)
        pairs = [word for pair in zip(feed, given, strict=True) for word in pair]
        words = [sys.executable, "-c", _SCRIPT, runtime, str(model), str(threads or 0), str(_RUNS), *pairs]
        try:
            ended = subprocess.run(words, capture_output=True, text=True, timeout=_LIMIT, check=False)
            return int(ended.stdout.split()[-1]) * 1024
        except (subprocess.TimeoutExpired, ValueError, IndexError):
            return None


def _nothing() -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "nothing",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", 1))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("n", 1))],
    )
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model
