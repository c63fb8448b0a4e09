"""From a TorchScript archive and from an ONNX file to a verified ONNX file: the real command line."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from e2e_tools import Finished, Lane, run_cli, wanted
from onnx import helper
from torch import nn

import graftkit as gk
from graftkit.sources.torchscript import BAKED

FEW = ("--epochs", "1", "--cycles", "1", "--no-control", "--batch-size", "16", "--learning-rate", "0.01", "--json")

# Name of a form (and of the run's folder) -> the model's file.
FORMS = {
    "scripted": "scripted.pt",
    "traced": "traced.pt",
    "deciding": "deciding.pt",
    "onnx": "net.onnx",
    "onnx_old": "old.onnx",
    "onnx_fixed": "fixed.onnx",
}


class Deciding(nn.Module):
    """Takes one of two ways, by the values of its input: [N, 1, 8, 8] to [N, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.up, self.down = nn.Linear(64, 16), nn.Linear(16, 16), nn.Linear(16, 16)
        self.last = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x.flatten(1)))
        y = self.up(x) if x.sum() > 0 else self.down(x)
        return self.last(y)


def net() -> nn.Sequential:
    """Untrained, so that training it gains something; [N, 1, 8, 8] to [N, 10]."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.1),
        nn.Linear(256, 16), nn.ReLU(), nn.Linear(16, 10),
    ).eval()  # fmt: skip


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Networks in every form."""
    folder = tmp_path_factory.mktemp("graphs")
    example = torch.zeros(2, 1, 8, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(net()), folder / "scripted.pt")
        torch.jit.save(torch.jit.trace(net(), example), folder / "traced.pt")
        torch.jit.save(torch.jit.script(Deciding().eval()), folder / "deciding.pt")
        names = {"input_names": ["pixels:0"], "output_names": ["digit/scores"]}
        free = {"dynamic_axes": {"pixels:0": {0: "images"}, "digit/scores": {0: "images"}}}
        for name, opset, sizes in (("net", 17, free), ("old", 11, free), ("fixed", 13, {})):
            given = example if sizes else example[:1]
            torch.onnx.export(
                net(), (given,), folder / f"{name}.onnx", dynamo=False, opset_version=opset, **names, **sizes
            )
    model = onnx.load(folder / "net.onnx")
    helper.set_model_props(model, {"author": "an institute", "classes": "0 to 9"})
    onnx.save(model, folder / "net.onnx")
    return folder


@pytest.fixture(scope="module")
def made(shop: Path, request: pytest.FixtureRequest):
    def augment(form: str) -> Finished:
        return run_cli("augment", FORMS[form], "--data", "digits", *FEW, "--out", form, cwd=shop)

    lane = Lane([name for name in FORMS if name in wanted(request, "form")], augment)
    yield lane
    lane.close()


@pytest.mark.parametrize("form", FORMS)
def test_a_form_becomes_a_verified_onnx_file(made: Lane, shop: Path, form: str) -> None:
    done = made[form]
    assert done.returncode == 0 and "Traceback" not in done.stderr and "Warning" not in done.stderr, done
    metrics = json.loads(done.stdout)
    assert 0 <= metrics["parity"]["onnxruntime"] < 1e-4
    assert metrics["grafted"]["validation"] > metrics["baseline"]["validation"]
    session = onnxruntime.InferenceSession(shop / form / "model.onnx", providers=["CPUExecutionProvider"])
    rows = gk.load_data("digits").validation
    x, y = zip(*(rows[index] for index in range(len(rows))), strict=True)
    scores = session.run(None, {session.get_inputs()[0].name: torch.stack(x).numpy()})[0]
    right = float((scores.argmax(1) == torch.stack(y).numpy()).mean())
    assert right == pytest.approx(metrics[metrics["shipped"]]["validation"], abs=5e-3)


def test_an_onnx_file_keeps_its_names_sizes_and_metadata(made: Lane, shop: Path) -> None:
    assert made["onnx"].returncode == 0, made["onnx"]
    model = onnx.load(shop / "onnx" / "model.onnx")
    (given,), (found,) = model.graph.input, model.graph.output
    assert (given.name, found.name) == ("pixels:0", "digit/scores")
    sizes = [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in (given, found)]
    assert sizes == [["images", 1, 8, 8], ["images", 10]]
    told = {entry.key: entry.value for entry in model.metadata_props}
    assert told["author"] == "an institute" and told["classes"] == "0 to 9"


def test_a_batch_that_the_file_fixed_is_free_in_ours(made: Lane, shop: Path) -> None:
    assert made["onnx_fixed"].returncode == 0, made["onnx_fixed"]
    assert any("was freed here" in line for line in json.loads(made["onnx_fixed"].stdout)["warnings"])
    session = onnxruntime.InferenceSession(shop / "onnx_fixed" / "model.onnx", providers=["CPUExecutionProvider"])
    x = np.zeros((7, 1, 8, 8), np.float32)
    assert session.run(None, {session.get_inputs()[0].name: x})[0].shape == (7, 10)


def test_what_could_not_be_flipped_is_told(made: Lane) -> None:
    assert made["traced"].returncode == 0, made["traced"]
    assert any(BAKED in line for line in json.loads(made["traced"].stdout)["warnings"])


def test_a_decision_by_values_is_an_if_in_the_file(made: Lane, shop: Path) -> None:
    assert made["deciding"].returncode == 0, made["deciding"]
    model = onnx.load(shop / "deciding" / "model.onnx")
    assert "If" in {node.op_type for node in model.graph.node}


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda content: content[: len(content) // 2], "copy or download it again"),
        (lambda content: content.replace(b"Gemm", b"Gimm"), "Gimm"),
    ],
)
def test_a_broken_onnx_file_is_refused_in_one_line(shop: Path, tmp_path: Path, break_it, words: str) -> None:
    (tmp_path / "broken.onnx").write_bytes(break_it((shop / "net.onnx").read_bytes()))
    done = run_cli("augment", "broken.onnx", "--out", "run", cwd=tmp_path)
    assert done.returncode == 1
    assert words in done.last
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
