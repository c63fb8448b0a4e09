"""How much memory a file takes at most, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from graftkit.benching.files import Feed, File

_RUNS = 3
_LIMIT = 600.0  # seconds

# Peaks come from /proc: what getrusage calls a process's peak begins with that of the one that started it.
_SCRIPT = """
import os, pathlib, sys
import numpy
from graftkit.runtimes import RUNTIMES
_, name, model, feed, threads, runs = sys.argv
session = RUNTIMES.find(name).open(pathlib.Path(model), threads=int(threads) or None)
with numpy.load(feed) as inputs:
    given = dict(inputs)
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


def peak_memory(file: File, feed: Feed, runtime: str, threads: int | None) -> int | None:
    """Bytes that loading and running it takes at most, beyond those of a file that does nothing; None where unknown."""
    with tempfile.TemporaryDirectory() as folder:
        idle = Path(folder) / "idle.onnx"
        idle.write_bytes(_nothing().SerializeToString())
        empty, full = Path(folder) / "idle.npz", Path(folder) / "feed.npz"
        np.savez(empty, x=np.zeros((1, 1), np.float32))
        np.savez(full, **dict(feed))  # type: ignore[arg-type]
        before, after = _peak(idle, empty, runtime, threads), _peak(file.path, full, runtime, threads)
    return None if before is None or after is None else max(0, after - before)


def _peak(model: Path, feed: Path, runtime: str, threads: int | None) -> int | None:
    if not sys.platform.startswith("linux"):
        return None
    words = [sys.executable, "-c", _SCRIPT, runtime, str(model), str(feed), str(threads or 0), str(_RUNS)]
    try:
        ended = subprocess.run(words, capture_output=True, text=True, timeout=_LIMIT, env=os.environ, check=False)
        return int(ended.stdout) * 1024
    except (subprocess.TimeoutExpired, ValueError):
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
