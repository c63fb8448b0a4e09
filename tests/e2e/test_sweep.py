"""Workers that share a sweep, through the real command line."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

from e2e_tools import GRAFTKIT, environment, run_cli

ASKED = ("mlp:build", "--data", "digits", "--epochs", "2", "--cycles", "1")
SEARCH = ("--search", "arch.hidden=[4,4]|[6,6]|[8,4]", "--search", "learning-rate=1e-3..1e-2")


def start(workshop: Path, *words: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [GRAFTKIT, "sweep", *ASKED, *words], cwd=workshop, env=environment(), stdout=pipe, stderr=pipe, text=True
    )


def test_two_workers_share_a_sweep_and_both_tell_of_all(workshop: Path) -> None:
    words = (*SEARCH, "--out", "sweep_shared", "--trials", "5")
    workers = [start(workshop, *words) for _ in range(2)]
    ends = [worker.communicate(timeout=240) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], ends
    told = json.loads((workshop / "sweep_shared/sweep.json").read_text())
    trials = told["trials"]
    assert len(trials) == 5
    assert {trial["state"] for trial in trials} == {"complete"}
    for trial in trials:
        assert (workshop / "sweep_shared" / trial["folder"] / "model.onnx").is_file()
    done = [stderr.count("control ") for _, stderr in ends]
    assert sum(done) == len(trials) and all(done), ends  # each worked, and told of its own
    for stdout, _ in ends:
        assert "came to their end: 5 of 5." in stdout and "with dendrites" in stdout
    again = run_cli("sweep", *ASKED, *words, "--json", cwd=workshop)
    assert again.returncode == 0 and json.loads(again.stdout) == told
    assert (workshop / "sweep_shared/front.svg").read_text().startswith("<svg")


def test_a_sweep_that_is_ended_by_its_scheduler_goes_on(workshop: Path) -> None:
    words = (*SEARCH, "--epochs", "150", "--out", "sweep_ended", "--trials", "1")
    worker = start(workshop, *words)
    end = time.monotonic() + 120
    while not any((workshop / "sweep_ended").glob("trials/0000/checkpoint/progress/*.json")):
        assert worker.poll() is None and time.monotonic() < end
        time.sleep(0.02)
    worker.send_signal(signal.SIGTERM)
    _, stderr = worker.communicate(timeout=60)
    assert worker.returncode == 143, stderr
    assert "the same command again goes on with the sweep" in stderr
    done = run_cli("sweep", *ASKED, *words, cwd=workshop)
    assert done.returncode == 0, done
    trials = json.loads((workshop / "sweep_ended/sweep.json").read_text())["trials"]
    assert [(t["number"], t["folder"], t["state"]) for t in trials] == [(0, "trials/0000", "complete")]
