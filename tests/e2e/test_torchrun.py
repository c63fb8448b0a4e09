"""A run of two processes that torchrun starts, and one of them that dies."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from e2e_tools import environment, run_cli

ASKED = ("weak.pt", "--data", "rows.npz", "--margin", "0", "--cycles", "1")


def torchrun(workshop: Path, *words: object) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "graftkit"]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [*line, "augment", *map(str, words)], cwd=workshop, env=environment(), stdout=pipe, stderr=pipe, text=True
    )


def test_two_processes_make_one_run(workshop: Path) -> None:
    stdout, stderr = (process := torchrun(workshop, *ASKED, "--epochs", 3, "--out", "two")).communicate(timeout=240)
    assert process.returncode == 0, stderr
    assert stdout.count("Written: two/model.onnx") == 1 and stderr.count("- tracing") == 1
    assert "seed 0, control" in stderr and "rank" not in stderr.lower()
    verified = run_cli("verify", "two", cwd=workshop)
    assert verified.returncode == 0, verified
    assert json.loads((workshop / "two/metrics.json").read_text())["shipped"] == "grafted"
    assert not list((workshop / "two").rglob("*.tmp"))


def test_what_is_wrong_is_told_by_each_process(workshop: Path) -> None:
    _, stderr = (process := torchrun(workshop, "missing.pt", "--out", "none")).communicate(timeout=120)
    assert process.returncode == 1
    assert "there is no file missing.pt" in stderr and "graftkit/" not in stderr  # one line, no traceback of ours
    assert not (workshop / "none").exists()


def test_a_worker_that_is_lost_ends_the_run_which_goes_on_later(workshop: Path, pytestconfig: pytest.Config) -> None:
    chance = random.Random(0)
    for number in range(max(1, pytestconfig.getoption("kills") // 10)):
        lose_one(workshop, f"lost{number}", then=chance.uniform(0, 1))


def lose_one(workshop: Path, name: str, *, then: float) -> None:
    """Kill the second process so long after a checkpoint, and go on."""
    run = workshop / name
    process = torchrun(workshop, *ASKED, "--epochs", 100, "--out", name)
    end = time.monotonic() + 120
    while not any(run.glob("checkpoint/progress/*.json")):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.02)
    time.sleep(then)
    os.kill(second(process.pid), signal.SIGKILL)
    process.communicate(timeout=120)
    assert process.returncode != 0
    assert not (run / "model.onnx").exists()
    _, stderr = (again := torchrun(workshop, "--resume", name)).communicate(timeout=240)
    assert again.returncode == 0, stderr
    phases = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    assert [(phase["arm"], phase["epochs"]) for phase in phases] == [("grafted", 100), ("control", 100)]
    assert (run / "model.onnx").exists()


def second(parent: int) -> int:
    """The process with number 1."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (folder / "stat").exists():
            words = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(words[1]) == parent and b"\\0RANK=1\\0" in (folder / "environ").read_bytes().replace(b"\0", b"\\0"):
                return int(folder.name)
    raise AssertionError("there is no second process")
