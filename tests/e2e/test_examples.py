"""The examples run as they are written, and what they export reads digits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest
from e2e_tools import environment

import graftkit as gk

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(code: list[str], cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, *code], cwd=cwd, env=environment(), capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def accuracy(file: Path) -> float:
    inputs, targets = gk.load_data("digits").validation.tensors  # type: ignore[union-attr]
    session = onnxruntime.InferenceSession(file)
    (answers,) = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})
    return float((answers.argmax(1) == targets.numpy()).mean())


@pytest.mark.parametrize("name", sorted(path.stem for path in EXAMPLES.glob("*.py")))
def test_it_trains_grows_and_exports(name: str, tmp_path: Path) -> None:
    epochs = {"transformers_digits": 17}.get(name, 24)
    told = run(
        ["-c", f"import sys; sys.path.insert(0, {str(EXAMPLES)!r}); import {name}; {name}.main({epochs})"], tmp_path
    )
    score, _, count, *_ = told.strip().splitlines()[-1].split()
    assert int(count) > 0, told
    assert accuracy(tmp_path / f"{name}.onnx") == pytest.approx(float(score), abs=1e-3)
    assert float(score) > 0.6


def test_under_torchrun_it_is_resumed_and_written_once(tmp_path: Path) -> None:
    start = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0", "--standalone"]
    script = tmp_path / "short.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(EXAMPLES)!r}); import own_loop; own_loop.main(int(sys.argv[1]))"
    )
    run([*start, str(script), "3"], tmp_path)
    checkpoints = sorted(path.name for path in (tmp_path / "own_loop").iterdir())
    assert len(checkpoints) == 4 and (tmp_path / "own_loop.onnx").exists()
    (tmp_path / "own_loop.onnx").unlink()
    told = run([*start, str(script), "5"], tmp_path)
    assert told.count("dendrites:") == 1 and (tmp_path / "own_loop.onnx").exists()
    assert max(path.name for path in (tmp_path / "own_loop").iterdir()) == "grower.000005.safetensors"
