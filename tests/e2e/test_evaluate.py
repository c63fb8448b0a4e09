"""`graftkit evaluate` through the real command line: tables, JSON, pictures, a kill, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from e2e_tools import GRAFTKIT, environment, run_cli

FEW = ("--only", "few", "--shares", "30%,100%", "--seeds", "2", "--epochs", "2")


@pytest.fixture(scope="module")
def folder(workshop: Path, runs) -> Path:
    """A copy of a run beside what it was made from."""
    assert runs["weak"].returncode == 0
    shutil.copytree(workshop / "weak", workshop / "evaluated")
    return workshop / "evaluated"


@pytest.mark.runs("weak")
def test_corrupted_inputs(folder: Path, workshop: Path) -> None:
    done = run_cli("evaluate", "evaluated", "--only", "corruptions", cwd=workshop)
    assert done.returncode == 0 and "\x1b" not in done.stdout + done.stderr, done
    assert re.search(r"accuracy on 359 test rows +given +control +grafted", done.stdout), done
    for name in ("as they are", "gaussian-noise", "impulse-noise", "blur", "contrast", "occlusion", "mean of all"):
        assert re.search(rf"^{name}.* \d+\.\d+% .*±", done.stdout, flags=re.MULTILINE), name
    assert re.search(r"On corrupted rows grafted is .* than given|On corrupted rows grafted is .* given", done.stdout)
    assert "Written: evaluated/evaluation.json and evaluated/evaluation.svg" in done.stdout
    report = json.loads((folder / "evaluation.json").read_text())
    told = json.loads((folder / "metrics.json").read_text())
    clean = report["corrupted"]["clean"]
    assert clean["given"] == pytest.approx(told["baseline"]["test"])
    assert clean["control"] == pytest.approx(told["control"]["test"])
    assert clean["grafted"] == pytest.approx(told["best_grafted"]["test"])
    strongest = [r["scores"] for r in report["corrupted"]["strengths"] if r["strength"] == 5]
    assert len(strongest) == 5 and all(scores["grafted"] < clean["grafted"] for scores in strongest)


@pytest.mark.runs("weak")
def test_few_samples_and_a_kill(folder: Path, workshop: Path) -> None:
    whole = run_cli("evaluate", "evaluated", *FEW, "--json", cwd=workshop)
    assert whole.returncode == 0, whole
    wanted = json.loads(whole.stdout)["few"]
    assert [(r["share"], r["rows"], r["seed"]) for r in wanted] == [
        (0.3, 323, 0), (1.0, 1078, 0), (0.3, 323, 1), (1.0, 1078, 1),
    ]  # fmt: skip
    assert wanted[1]["test"]["given"] > 0.3  # two epochs of all rows teach something
    words = [GRAFTKIT, "evaluate", "evaluated", *FEW, "--json"]
    killed = subprocess.Popen(words, cwd=workshop, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    kept = folder / "checkpoint" / "evaluation"
    begun = time.monotonic()
    while not list(kept.glob("few-0.3-0-ended*.json")) and killed.poll() is None and time.monotonic() - begun < 120:
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert kept.is_dir() and killed.returncode == -signal.SIGKILL
    again = run_cli("evaluate", "evaluated", *FEW, "--json", cwd=workshop)
    assert again.returncode == 0 and json.loads(again.stdout)["few"] == wanted, again
    assert again.stderr.count("learning from") < 4 and not kept.exists()
    done = run_cli("evaluate", "evaluated", "--only", "few", *FEW[2:], cwd=workshop)
    assert re.search(r"^30% of the rows \(323\) ", done.stdout, flags=re.MULTILINE), done
    assert "On corrupted rows" not in done.stdout and "corrupted" in (folder / "evaluation.json").read_text()


@pytest.mark.runs("weak")
@pytest.mark.parametrize(
    ("words", "says", "code"),
    [
        (("nowhere",), "nowhere holds no run that could go on", 1),
        (("images",), "images holds no run that could go on", 1),
        (("evaluated", "--shares", "0.1%"), "of 1078 training rows is 1; give larger --shares", 1),
        (("evaluated", "--shares", "200%"), "write shares of the training rows up to 100%", 1),
        (("evaluated", "--time-axis", "5"), "it is from 1 to 3", 1),
        (("evaluated", "--device", "toaster"), "the device 'toaster' cannot be used here", 1),
        (("evaluated", "--only", "few", "--form", "image"), "--only few leaves out what --form is for", 2),
        (("evaluated", "--only", "corruptions", "--seeds", "4"), "leaves out what --seeds is for", 2),
        (("evaluated", "--form", "sound"), "is not one of", 2),
    ],
)
def test_what_is_wrong_is_said_in_a_line(folder: Path, workshop: Path, words: tuple[str, ...], says: str, code: int):
    before = (folder / "evaluation.json").read_bytes() if (folder / "evaluation.json").exists() else b""
    done = run_cli("evaluate", *words, cwd=workshop)
    assert done.returncode == code and says in done.last and "Traceback" not in done.stderr, done
    assert (before == b"") or (folder / "evaluation.json").read_bytes() == before


@pytest.mark.runs("function")
def test_rows_from_a_program(runs, workshop: Path) -> None:
    assert runs["function"].returncode == 0
    done = run_cli("evaluate", "function", "--shares", "50%", "--seeds", "1", "--epochs", "1", "--json", cwd=workshop)
    assert done.returncode == 0 and "no control is measured: the run had none" in done.stderr, done
    report = json.loads(done.stdout)
    assert next(iter(report["corrupted"]["clean"])) == "given" and report["few"][0]["share"] == 0.5


@pytest.mark.runs("loaders")
def test_rows_that_come_by_a_loader(runs, workshop: Path) -> None:
    assert runs["loaders"].returncode == 0
    done = run_cli("evaluate", "loaders", cwd=workshop)
    assert done.returncode == 1 and "by a loader, of which no share can be taken" in done.last, done
    assert not (workshop / "loaders" / "evaluation.json").exists()
    done = run_cli("evaluate", "loaders", "--only", "corruptions", cwd=workshop)
    assert done.returncode == 0 and "mean of all corruptions" in done.stdout, done
