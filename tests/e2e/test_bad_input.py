"""What cannot work: one line that says why, the right exit code, and nothing half-written."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time

import onnxruntime
import pytest
import torch
from e2e_tools import GRAFTKIT, Finished, Lane, environment, run_cli, wanted
from safetensors.torch import load_file

AUGMENT = ("augment", "weak.pt", "--epochs", "1", "--cycles", "1", "--no-control", "--out", "out")
BUDGET = ("augment", "weak.pt", "--epochs", "1", "--no-control", "--out", "out")
OTHER = ("--epochs", "1", "--cycles", "1", "--no-control", "--out", "out")

# What is wrong -> (the command line, what its one line has to say). OUT stands for a folder of the case's own.
CASES: dict[str, tuple[tuple[str, ...], str]] = {
    "missing file": (("augment", "nowhere.pt", *OTHER), "there is no file nowhere.pt"),
    "empty file": (("augment", "empty.pt", *OTHER), "empty.pt is empty"),
    "truncated zip": (("augment", "truncated.pt", *OTHER), "cut short or damaged"),
    "text file": (("augment", "text.pt", *OTHER), "is a text file"),
    "state dict": (("augment", "state.pt", *OTHER), "is a state dict.*--weights"),
    "hostile pickle": (("augment", "hostile.pt", *OTHER), "wants to import .*system.*--trust"),
    "onnx source": (("augment", "foreign.onnx", *OTHER), "10 classes.*output has 5"),
    "broken onnx source": (("augment", "broken.onnx", *OTHER), "broken.onnx"),
    "no such factory": (("augment", "nets:biuld", *OTHER), "nets has no biuld.*build"),
    "no sites": (("augment", "no_sites.pt", *OTHER), "no Linear or Conv call"),
    "nan weights": (("augment", "nan_weights.pt", *OTHER), "(nan|NaN)"),
    "missing data": ((*AUGMENT, "--data", "gone.npz"), "gone.npz"),
    "misspelt data": ((*AUGMENT, "--data", "digit"), "digits"),
    "broken data": ((*AUGMENT, "--data", "broken.npz"), "broken.npz"),
    "shapes": ((*AUGMENT, "--data", "wide.npz"), r"wide.npz, \[1, 12, 12\]"),
    "too many classes": ((*AUGMENT, "--data", "twelve.npz"), "12 classes.*10"),
    "labels are values": ((*AUGMENT, "--data", "values.npz"), r"values.npz, \[6\]"),
    "nan in data": ((*AUGMENT, "--data", "nan.npz"), "nan.npz: x_train.*NaN"),
    "one class": ((*AUGMENT, "--data", "one_class.npz"), "only one class"),
    "raising function": ((*AUGMENT, "--data", "rows.py:raises"), r"no such table in the database .*rows.py, line \d+"),
    "no such function": ((*AUGMENT, "--data", "rows.py:dataset"), "has no function dataset.*datasets"),
    "loaders and correlation": ((*AUGMENT, "--data", "rows.py:loaders", "--rule", "correlation"), "[Ll]oader"),
    "sites": ((*AUGMENT, "--sites", "laier1.*"), "'laier1.*' matches none of the 3 sites"),
    "close sites": (("augment", "vit.pt", "--trust", *OTHER, "--sites", "blocks.0.mlp0"), "mean blocks.0.mlp.0"),
    "kind": ((*AUGMENT, "--dendrites", "contxt"), "unknown dendrite kind 'contxt'.*mean context"),
    "option": ((*AUGMENT, "--dendrites", "context:unit=2"), "no option 'unit'.*mean units"),
    "rule": ((*AUGMENT, "--rule", "gradien"), "unknown learning rule 'gradien'.*mean gradient"),
    "cap": ((*AUGMENT, "--max-parameters", "lots"), r"\+20%"),
    "low cap": ((*AUGMENT, "--max-parameters", "12"), "less than the model has"),
    "budget": ((*BUDGET, "--budget", "10%"), r"write WHAT=\+HOW MUCH"),
    "kind of budget": ((*BUDGET, "--budget", "parameter=+10%"), "unknown kind of budget 'parameter'.*mean parameters"),
    "budget and rule": (
        (*BUDGET, "--budget", "macs=+5%", "--rule", "correlation"),
        "does not go with the rule correlation",
    ),
    "budget and cap": ((*BUDGET, "--budget", "macs=+5%", "--max-parameters", "+9%"), "both limit growth; give one"),
    "precision": ((*AUGMENT, "--precision", "fp8"), "'fp8' is not offered; choose 32-true or bf16-mixed"),
    "device": ((*AUGMENT, "--device", "toaster"), "the device 'toaster' cannot be used here"),
    "metric": ((*AUGMENT, "--metric", "no.such:thing"), "no.such:thing"),
    "unwritable": (("augment", "weak.pt", "--out", "text.pt/run"), "text.pt/run"),
    "file as folder": (("augment", "weak.pt", "--out", "text.pt"), "text.pt is a file"),
    "inspect broken onnx": (("inspect", "broken.onnx"), "broken.onnx is not a readable ONNX file"),
    "inspect other folder": (("inspect", "images"), "not a run's"),
    "inspect misfit": (("inspect", "weak.pt", "--input", "7"), "--input or --data"),
    "export other folder": (("export", "images"), "images"),
}
if not torch.cuda.is_available():
    CASES["cuda"] = ((*AUGMENT, "--device", "cuda"), "the device 'cuda' cannot be used here")


@pytest.fixture(scope="module")
def cases(workshop, request):
    """What each of `CASES` gave, and what lay in the workshop afterwards that was not there before."""

    def run(name: str) -> Finished:
        words = tuple(_own(name) if word == "out" else word for word in CASES[name][0])
        return run_cli(*words, cwd=workshop)

    lane = Lane([name for name in CASES if name in wanted(request, "case")], run)
    yield lane
    lane.close()


def _own(name: str) -> str:
    return "out-" + name.replace(" ", "-")


def check_refusal(done: Finished, says: str, code: int = 1) -> None:
    assert done.returncode == code, done
    assert "Traceback" not in done.stderr and done.stdout == "", done
    assert done.last.startswith("graftkit: ") and re.search(says, done.last), done
    assert done.stderr.count("graftkit: ") == 1 and len(done.last) < 500, done
    before = done.stderr.splitlines()[:-1]
    assert all(line.startswith(("- ", "  ")) for line in before), done


@pytest.mark.parametrize("case", CASES)
def test_it_is_refused_in_one_line_and_nothing_is_written(cases, workshop, case):
    check_refusal(cases[case], CASES[case][1])
    assert not list(workshop.glob(f"*{_own(case)}*")) and not list(workshop.glob(f".*{_own(case)}*"))
    assert not (workshop / "runs").exists() and not (workshop / "pwned").exists()
    assert (workshop / "text.pt").is_file()


def test_a_frozen_model_is_left_frozen(workshop):
    line = ("augment", "frozen.pt", "--epochs", "1", "--cycles", "1", "--no-control", "--out", "cold")
    done = run_cli(*line, cwd=workshop)
    assert done.returncode == 0, done
    given = torch.load(workshop / "frozen.pt", weights_only=False).state_dict()
    kept = load_file(workshop / "cold/checkpoint/model.safetensors")
    found = [name for name in kept if any(name.endswith(f"{own}.weight") for own in ("0", "4", "6"))]
    assert any(torch.equal(kept[name], given["4.weight"]) for name in found), (found, done)


def test_a_loss_of_the_user_s_own_folder(workshop):
    line = ("weak.pt", "--epochs", "1", "--cycles", "1", "--no-control", "--out", "own_loss")
    done = run_cli("augment", *line, "--loss", "nets:entropy", cwd=workshop)
    assert done.returncode == 0, done


def test_a_loss_whose_module_fails(workshop):
    (workshop / "failing_loss").mkdir()
    (workshop / "failing_loss/fails.py").write_text("1 / 0\n")
    words = ("augment", "../weak.pt", "--loss", "fails:loss")
    check_refusal(run_cli(*words, cwd=workshop / "failing_loss"), "fails:loss.*division by zero")


def test_a_bad_shape_is_wrong_usage(workshop):
    done = run_cli("inspect", "weak.pt", "--input", "wide", cwd=workshop)
    assert done.returncode == 2 and "'wide' is not [name:]shape[:dtype]" in done.last, done


def test_a_budget_is_spent_in_one_cycle(workshop):
    done = run_cli("augment", "weak.pt", "--budget", "macs=+5%", "--cycles", "2", cwd=workshop)
    assert done.returncode == 2 and "--budget is spent in one cycle; leave --cycles out" in done.last, done


@pytest.mark.parametrize(
    ("asked", "code", "words"),
    [
        (("--cache-memory", "1GB"), 2, "--cache-memory is for --rule correlation"),
        (("--rule", "correlation:memory=1MB", "--cache-memory", "1GB"), 2, "--cache-memory contradicts --rule"),
        (("--rule", "correlation", "--cache-memory", "lots"), 1, "'lots' is no amount of memory; write it as 500MB"),
        (("--rule", "correlation", "--cache-memory", "1GB,pool=1"), 1, "'1GB,pool=1' is no amount of memory"),
        (("--rule", "correlation:false_positives=often"), 1, "false_positives must be a number, not 'often'"),
        (("--rule", "correlation:false_positives=0"), 1, "false_positives must be 0.01 to 0.5, not 0.0"),
    ],
)
def test_a_cache_that_makes_no_sense_is_refused(workshop, asked, code, words):
    done = run_cli("augment", "weak.pt", *asked, cwd=workshop)
    assert done.returncode == code and words in done.last, done


def test_a_frozen_base_that_learns_is_wrong_usage(workshop):
    done = run_cli("augment", "weak.pt", "--freeze-base", "--rule", "gradient:freeze=false", cwd=workshop)
    assert done.returncode == 2 and "--freeze-base contradicts --rule gradient:freeze=false" in done.last, done


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (("--shrink", "0.3", "--freeze-base"), "its weights stand still; leave --shrink out"),
        (("--shrink", "0.3", "--rule", "correlation"), "leave --shrink out"),
        (("--rule", "correlation", "--dendrites", "full+pointwise"), "give one kind for each"),
        (("--dendrites", "default+full"), "goes with no other"),
        (("--label-smoothing", "0.1", "--loss", "mse"), "for the loss cross_entropy, not 0.1 for mse"),
    ],
)
def test_what_does_not_go_together_is_refused(workshop, asked, words):
    check_refusal(run_cli("augment", "weak.pt", *asked, "--out", "together", cwd=workshop), words)
    assert not (workshop / "together").exists()


def test_an_earlier_run_is_kept_without_force_and_after_a_failure(workshop):
    folder = workshop / "earlier"
    folder.mkdir()
    for name in ("source.json", "plan.json", "model.onnx"):
        (folder / name).write_text('{"graftkit": "0.1.0"}')
    kept = {path.name: path.read_text() for path in folder.iterdir()}
    line = ("augment", "weak.pt", "--epochs", "1", "--no-control", "--out", "earlier")
    check_refusal(run_cli(*line, cwd=workshop), "earlier is not empty; pass --force")
    assert {path.name: path.read_text() for path in folder.iterdir()} == kept
    check_refusal(run_cli(*line, "--force", "--sites", "nothing", cwd=workshop), "matches none")
    assert {path.name: path.read_text() for path in folder.iterdir()} == kept
    assert not list(workshop.glob(".earlier*"))


def test_force_does_not_replace_what_is_no_run(workshop):
    line = ("augment", "weak.pt", "--epochs", "1", "--no-control", "--out", "images", "--force")
    before = sorted(workshop.glob("images/**/*"))
    check_refusal(run_cli(*line, cwd=workshop), "files that no run makes")
    assert sorted(workshop.glob("images/**/*")) == before


def test_force_replaces_an_earlier_run(workshop):
    folder = workshop / "replaced"
    folder.mkdir()
    (folder / "source.json").write_text('{"graftkit": "0.1.0"}')
    (folder / "history.jsonl").write_text("old")
    line = ("augment", "weak.pt", "--epochs", "1", "--cycles", "1", "--no-control", "--out", "replaced", "--force")
    done = run_cli(*line, cwd=workshop)
    assert done.returncode == 0 and (folder / "history.jsonl").read_text() != "old", done
    assert (folder / "model.onnx").exists()
    assert not list(workshop.glob(".replaced*"))


def test_a_loss_that_becomes_nan_is_rolled_back(workshop):
    line = ("augment", "weak.pt", "--epochs", "3", "--cycles", "1", "--learning-rate", "1e30", "--out", "diverged")
    done = run_cli(*line, cwd=workshop)
    check_refusal(done, "NaN or infinite.*rolled back.*diverged holds")
    metrics = json.loads((workshop / "diverged/metrics.json").read_text())
    assert metrics["shipped"] in ("given", "grafted") and metrics["parity"]["onnxruntime"] < 1e-4
    assert metrics["grafted"]["validation"] >= metrics["baseline"]["validation"]
    onnxruntime.InferenceSession(workshop / "diverged/model.onnx", providers=["CPUExecutionProvider"])


def test_ctrl_c_keeps_what_was_finished(workshop):
    folder = workshop / "stopped"
    line = ("augment", "weak.pt", "--epochs", "2000", "--out", "stopped")
    process = subprocess.Popen(
        [GRAFTKIT, *line],
        cwd=workshop,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job ignores it
    )
    try:
        deadline = time.monotonic() + 120
        while not (folder / "source.json").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(4)
        os.kill(process.pid, signal.SIGINT)
        stdout, stderr = process.communicate(timeout=120)
    finally:
        process.kill()
    done = Finished(line, process.returncode, stdout, stderr)
    check_refusal(done, "stopped by the user; stopped keeps .*graftkit export stopped", code=130)
    assert not (folder / "model.onnx").exists() and (folder / "checkpoint/model.safetensors").exists()
    assert json.loads((folder / "metrics.json").read_text())["interrupted"] is True
    after = run_cli("export", "stopped", cwd=workshop)
    assert after.returncode == 0 and after.stdout.startswith("Written: stopped/model.onnx"), after
    onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
