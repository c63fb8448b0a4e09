"""Runs command lines in forks of one process that has imported what they import: most of a short one's time.

What runs is the installed script, in a folder, environment and arguments of its own.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

TESTS = Path(__file__).parents[1]
PRELOADED = (
    "__main__", "graftkit.api", "graftkit.augmenting", "graftkit.compressing", "matplotlib.figure", "optuna",
    "onnxruntime", "rich.progress", "sklearn.datasets", "torch._dynamo", "torch.export._trace", "torch.onnx",
    "torch_pruning",
)  # fmt: skip
_CONTEXT = multiprocessing.get_context("forkserver")


def start(environment: Mapping[str, str]) -> None:
    """Begin to import, as the environment says; some of it is read only then."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(environment)
    try:
        _CONTEXT.set_forkserver_preload(list(PRELOADED))
        multiprocessing.forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(before)


def run(
    script: Path, words: Sequence[str], cwd: Path, environment: Mapping[str, str], timeout: float
) -> tuple[int, str, str]:
    """Exit code (negative: the signal), stdout and stderr. Raises subprocess.TimeoutExpired."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = _CONTEXT.Process(target=_run, args=(script, words, cwd, dict(environment), out, err))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired([script, *words], timeout)
        texts = [path.read_text(encoding="utf-8") if path.exists() else "" for path in (out, err)]
        return process.exitcode, texts[0], texts[1]


def _run(script: Path, words: Sequence[str], cwd: Path, environment: Mapping[str, str], out: Path, err: Path) -> None:
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    for path, number in ((out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.path[:] = [str(script.parent), *(folder for folder in sys.path if not Path(folder).is_relative_to(TESTS))]
    sys.argv = [str(script), *words]
    runpy.run_path(str(script), run_name="__main__")
