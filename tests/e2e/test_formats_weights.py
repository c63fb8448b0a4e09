"""From weights alone, and from a pickle whose classes are allowed, to a verified ONNX file: the real command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from e2e_tools import Finished, Lane, run_cli, wanted
from safetensors.torch import save_file

import graftkit as gk

NETS = """
from torch import nn

def build(width=4, classes=10):
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.Flatten(),
        nn.Linear(64 * width, 16), nn.ReLU(), nn.Linear(16, classes),
    )

class Swish(nn.Module):
    def forward(self, x):
        return x * x.sigmoid()

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = build(3)
        self.bend = Swish()
        self.head = nn.Linear(10, 10)

    def forward(self, x):
        return self.head(self.bend(self.body(x)))

class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.unsure = build(6), nn.Linear(10, 1)

    def forward(self, x):
        scores = self.net(x)
        return [row.argmax() for row in scores.detach().numpy()], self.unsure(scores)
"""
FEW = ("--epochs", "1", "--cycles", "1", "--no-control", "--batch-size", "16", "--learning-rate", "0.01", "--json")
ALLOWED = ("--allow", "weight_nets.Net", "--allow", "weight_nets.Swish")

# Name of a format (and of the run's folder) -> what follows `graftkit augment`.
FORMATS: dict[str, tuple[str, ...]] = {
    "state_dict": ("state.pt", "--arch", "weight_nets:build", "--arch-args", "width=6"),
    "checkpoint": ("checkpoint.pth", "--arch", "weight_nets:build", "--arch-args", "width=6"),
    "safetensors": ("net.safetensors", "--arch", "weight_nets:build", "--arch-args", "width=6"),
    "lightning": ("net.ckpt", "--arch", "weight_nets:build"),
    "allowed": ("own.pt", *ALLOWED),
    "part": ("reader.pt", "--allow", "weight_nets.Reader", "--part", "net"),
}
SAID = {
    "checkpoint": ("the weights are those under 'model'", "without the module. that all of them begin with"),
    "lightning": ("the checkpoint says what weight_nets:build was made with: width=6", "without loss.weight"),
    "part": ("only net is taken, ", "outside stay unsure (1 Linear and Conv)"),
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One network, saved in every form."""
    folder = tmp_path_factory.mktemp("weights")
    (folder / "weight_nets.py").write_text(NETS)
    names: dict[str, object] = {}
    exec(NETS, names)
    torch.manual_seed(0)
    state = names["build"](6).state_dict()
    torch.save(state, folder / "state.pt")
    save_file(state, folder / "net.safetensors")
    wrapped = {f"module.{key}": value for key, value in state.items()}
    torch.save({"epoch": 3, "model": wrapped, "optimizer": {"state": {}}}, folder / "checkpoint.pth")
    inside = {f"net.{key}": value for key, value in state.items()} | {"loss.weight": torch.ones(10)}
    kept = {"pytorch-lightning_version": "2.5.0", "state_dict": inside, "hyper_parameters": {"width": 6, "lr": 0.1}}
    torch.save(kept, folder / "net.ckpt")
    _pickle_own(folder)
    return folder


def _pickle_own(folder: Path) -> None:
    """Save modules of the folder's own classes, from a process of its own."""
    code = """
import torch, weight_nets
for name, made in (("own.pt", weight_nets.Net), ("reader.pt", weight_nets.Reader)):
    torch.manual_seed(1)
    torch.save(made(), name)
"""
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, timeout=120)


@pytest.fixture(scope="module")
def made(shop: Path, request: pytest.FixtureRequest):
    def augment(name: str) -> Finished:
        return run_cli("augment", *FORMATS[name], *FEW, "--out", name, cwd=shop)

    lane = Lane([name for name in FORMATS if name in wanted(request, "form")], augment)
    yield lane
    lane.close()


@pytest.mark.parametrize("form", FORMATS)
def test_a_format_becomes_a_verified_onnx_file(made: Lane, shop: Path, form: str) -> None:
    done = made[form]
    assert done.returncode == 0 and "Traceback" not in done.stderr and "Warning" not in done.stderr, done
    metrics = json.loads(done.stdout)
    assert 0 <= metrics["parity"]["onnxruntime"] < 1e-4
    assert metrics["shipped"] == "grafted" and metrics["grafted"]["validation"] > metrics["baseline"]["validation"]
    for said in SAID.get(form, ()):
        assert any(said in line for line in metrics["warnings"]), metrics["warnings"]
    session = onnxruntime.InferenceSession(shop / form / "model.onnx", providers=["CPUExecutionProvider"])
    rows = gk.load_data("digits").validation
    x, y = zip(*(rows[index] for index in range(len(rows))), strict=True)
    scores = session.run(None, {session.get_inputs()[0].name: torch.stack(x).numpy()})[0]
    right = float((scores.argmax(1) == torch.stack(y).numpy()).mean())
    assert right == pytest.approx(metrics["grafted"]["validation"], abs=5e-3)


def test_the_same_weights_give_the_same_run_whatever_they_lie_in(made: Lane, shop: Path) -> None:
    x = np.random.default_rng(0).random((3, 1, 8, 8), dtype=np.float32)
    outputs = []
    for form in ("state_dict", "safetensors", "checkpoint", "lightning"):
        assert made[form].returncode == 0, made[form]
        session = onnxruntime.InferenceSession(shop / form / "model.onnx", providers=["CPUExecutionProvider"])
        outputs.append(session.run(None, {session.get_inputs()[0].name: x})[0])
    for other in outputs[1:]:
        np.testing.assert_allclose(other, outputs[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", ["lightning", "allowed", "part"])
def test_a_run_can_be_opened_again(made: Lane, shop: Path, form: str) -> None:
    assert made[form].returncode == 0, made[form]
    done = run_cli("verify", form, "--json", cwd=shop)
    assert done.returncode == 0, done
    assert json.loads(done.stdout)["runtimes"]["onnxruntime"]["difference"] < 1e-4


def test_inspect_takes_the_same_words(shop: Path) -> None:
    words = ("inspect", *FORMATS["safetensors"], "--input", "input:1,8,8", "--dynamic", "batch", "--json")
    unnamed = ("inspect", *FORMATS["allowed"], "--input", "1x8x8", "--json")
    part = ("inspect", *FORMATS["part"], "--input", "1x8x8", "--json")
    found = ("inspect", *FORMATS["part"][:-2], "--input", "1x8x8", "--json")
    for line, sites, note in (
        (words, 3, "all 3 Linear and Conv calls are sites"),
        (unnamed, 4, "all 4 Linear and Conv calls are sites"),
        (part, 3, "only net is taken, 100% of the weights; outside stay unsure (1 Linear and Conv)"),
        (found, 3, "outside stay unsure (1 Linear and Conv)"),
    ):
        done = run_cli(*line, cwd=shop)
        assert done.returncode == 0, done
        told = json.loads(done.stdout)
        assert len(told["sites"]) == sites and note in told["notes"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("state.pt",), "is a state dict, which holds weights but no architecture; name that with --arch"),
        (("state.pt", "--arch", "weight_nets:build", "--arch-args", "widht=6"), "Did you mean width"),
        (("own.pt",), "pass --allow weight_nets.Net --allow weight_nets.Swish"),
        (("own.pt", *ALLOWED, "--allow", "os.system"), "through that name a file can run any code"),
        (("reader.pt", "--allow", "weight_nets.Reader"), ": return [row.argmax() for row in scores"),
        (
            ("reader.pt", "--allow", "weight_nets.Reader"),
            "a part of it may be grafted alone (--part PATH; `graftkit insp",
        ),
        (("reader.pt", "--allow", "weight_nets.Reader", "--part", "nat"), "has no part 'nat'. Did you mean net"),
        (("hf:nowhere",), "there is no folder nowhere"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_is_missing_or_wrong_is_one_line(shop: Path, words: tuple[str, ...], said: str) -> None:
    done = run_cli("augment", *words, "--out", "refused", cwd=shop)
    assert (done.returncode, done.stdout) == (1, ""), done
    assert done.last.startswith("graftkit: ") and said in done.last, done
    assert not (shop / "refused").exists()
