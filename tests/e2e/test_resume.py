"""A run that is killed goes on with --resume, and ends with the very file of one that was not."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from e2e_tools import GRAFTKIT, Finished, environment, run_cli

from graftkit.augmenting import Interrupted, augment
from graftkit.contracts import Observer, SourceRequest
from graftkit.request import Request

ASKED = (
    "weak.pt",
    "--data",
    "rows.npz",
    "--epochs",
    "40",
    "--cycles",
    "2",
    "--batch-size",
    "8",
    "--margin",
    "0",
    "--dendrites",
    "full",
)
SAME = ("model.onnx", "history.jsonl", "metrics.json", "plan.json", "inspection.json", "report.html")


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(workshop: Path) -> Iterator[Start]:
    """Starts command lines in the background; what a test that failed left running is killed after it."""
    started: list[subprocess.Popen[str]] = []

    def run(*args: object, cwd: Path = workshop) -> subprocess.Popen[str]:
        words, pipe = [GRAFTKIT, *map(str, args)], subprocess.PIPE
        process = subprocess.Popen(words, cwd=cwd, env=environment(), stdout=subprocess.DEVNULL, stderr=pipe, text=True)
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def until_it_trains(process: subprocess.Popen[str], run: Path, *, then: float = 0.0) -> None:
    """Wait for a checkpoint, and so long after it."""
    end = time.monotonic() + 240
    while not any(run.glob("checkpoint/progress/*.json")):
        assert process.poll() is None and time.monotonic() < end, "it never came to a checkpoint"
        time.sleep(0.02)
    time.sleep(then)


def ended(process: subprocess.Popen[str], how: signal.Signals) -> Finished:
    process.send_signal(how)
    _, stderr = process.communicate(timeout=120)
    return Finished((), process.returncode, "", stderr)


@pytest.fixture(scope="module")
def whole(workshop: Path) -> Path:
    """A run without a break."""
    done = run_cli("augment", *ASKED, "--out", "whole", cwd=workshop)
    assert done.returncode == 0, done
    return workshop / "whole"


def same_end(run: Path, whole: Path) -> None:
    for name in SAME:
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name
    assert sorted(path.name for path in run.rglob("*")) == sorted(path.name for path in whole.rglob("*"))


def test_killed_at_any_moment_it_comes_to_the_same_file(
    workshop: Path, whole: Path, start: Start, pytestconfig: pytest.Config
) -> None:
    chance = random.Random(0)
    kills = runs = 0
    while kills < pytestconfig.getoption("kills"):
        run, runs = workshop / f"killed{runs}", runs + 1
        process = start("augment", *ASKED, "--out", run.name)
        until_it_trains(process, run, then=chance.uniform(0, 2))
        while process.poll() is None:  # it dies again and again, each time a little later
            ended(process, signal.SIGKILL)
            kills += 1
            process = start("augment", "--resume", run.name)
            try:
                process.wait(chance.uniform(4, 12))
            except subprocess.TimeoutExpired:
                if kills < pytestconfig.getoption("kills"):
                    continue
            _, stderr = process.communicate(timeout=240)
            assert process.returncode == 0, stderr
        same_end(run, whole)


def test_nobody_else_may_touch_a_run_that_is_on(workshop: Path, start: Start) -> None:
    run = workshop / "held"
    process = start("augment", *ASKED, "--epochs", 100_000, "--out", run.name)
    until_it_trains(process, run)
    for args in (("--resume", run.name), (*ASKED, "--out", run.name, "--force")):
        other = run_cli("augment", *args, cwd=workshop)
        assert other.returncode == 1 and "another process works in" in other.last, other
    assert ended(process, signal.SIGKILL).returncode == -9


def test_sigterm_leaves_a_run_that_goes_on(workshop: Path, whole: Path, start: Start) -> None:
    run = workshop / "ended"
    process = start("augment", *ASKED, "--out", run.name)
    until_it_trains(process, run)
    gone = ended(process, signal.SIGTERM)
    assert gone.returncode == 143 and "ended by SIGTERM; if training had begun" in gone.last, gone
    refused = run_cli("augment", *ASKED, "--out", run.name, cwd=workshop)
    assert refused.returncode == 1 and "`graftkit augment --resume" in refused.last, refused
    done = run_cli("augment", "--resume", run.name, cwd=workshop)
    assert done.returncode == 0, done
    same_end(run, whole)
    again = run_cli("augment", "--resume", run.name, cwd=workshop)
    assert again.returncode == 0 and "came to its end before" in again.stdout
    told = run_cli("augment", "--resume", run.name, "--json", cwd=workshop)
    assert told.returncode == 0 and told.stdout == (run / "metrics.json").read_text()


def test_what_has_changed_since_is_told(workshop: Path, start: Start, tmp_path: Path) -> None:
    data, model = tmp_path / "rows.npz", tmp_path / "model.pt"
    data.write_bytes((workshop / "rows.npz").read_bytes())
    model.write_bytes((workshop / "weak.pt").read_bytes())
    process = start("augment", model, *ASKED[1:], "--epochs", 100_000, "--out", "run", cwd=tmp_path)
    until_it_trains(process, tmp_path / "run")
    ended(process, signal.SIGKILL)
    kept = sorted(path.name for path in (tmp_path / "run").rglob("*.json"))
    model.write_bytes((workshop / "mlp.pt").read_bytes())
    changed = run_cli("augment", "--resume", "run", cwd=tmp_path)
    assert changed.returncode == 1 and "the model has changed since" in changed.last, changed
    rows = dict(np.load(data))
    np.savez(data, **{name: value[:-1] if name[0] in "xy" else value for name, value in rows.items()})
    changed = run_cli("augment", "--resume", "run", cwd=tmp_path)
    assert changed.returncode == 1 and "rows.npz has changed since" in changed.last, changed
    assert sorted(path.name for path in (tmp_path / "run").rglob("*.json")) == kept


def test_stopped_before_anything_was_trained_the_earlier_run_is_back(
    workshop: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    before = {path.relative_to(run): path.read_bytes() for path in run.rglob("*") if path.is_file()}

    def stop(*given: object) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr("graftkit.training.Trainer.learn", stop)
    request = Request(SourceRequest(str(workshop / "weak.pt")), "digits", run, force=True)
    with pytest.raises(Interrupted, match="before anything was trained"):
        augment(request, Observer())
    assert {path.relative_to(run): path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("--resume", "nowhere"), 1, "holds no run that could go on"),
        (("--resume", "nowhere", "--epochs", "3"), 2, "leave out --epochs"),
        (("--resume", "nowhere", "weak.pt"), 2, "leave out MODEL"),
        ((), 2, "Missing argument 'MODEL' (or --resume RUN)"),
    ],
)
def test_what_cannot_go_on_is_said(workshop: Path, args: tuple[str, ...], code: int, words: str) -> None:
    done = run_cli("augment", *args, cwd=workshop)
    assert done.returncode == code and words in done.stderr and "Traceback" not in done.stderr, done
    assert not (workshop / "nowhere").exists()
