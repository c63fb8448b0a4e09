"""Workers that share a sweep, through the real command line."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

from e2e_tools import GRAFTKIT, SAMPLES, environment, run_cli

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


def test_a_sweep_of_compressions(workshop: Path) -> None:
    words = ("sweep", SAMPLES / "mlp.pt", "--compress", "--search", "keep=0.3..0.6", "--trials", "2", "--epochs", "1",
             "--steps", "1", "--sparsity", "0", "--no-scratch", "--out", "sweep_small")  # fmt: skip
    done = run_cli(*words, cwd=workshop)
    assert done.returncode == 0, done
    told = json.loads((workshop / "sweep_small/sweep.json").read_text())
    assert told["command"] == "compress" and [t["state"] for t in told["trials"]] == ["complete"] * 2
    for trial in told["trials"]:
        assert trial["control"]["parameters"] <= float(trial["settings"]["keep"]) * 2778
        assert (workshop / "sweep_small" / trial["folder"] / "model.onnx").is_file()
    assert "came to their end: 2 of 2." in done.stdout and "the model as given" in done.stdout
    assert (workshop / "sweep_small/front.svg").read_text().startswith("<svg")
    plain = run_cli("inspect", "sweep_small/trials/0000", "--format", "json", cwd=workshop)
    assert plain.returncode == 0, plain
