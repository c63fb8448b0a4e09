"""`graftkit export --gate` through the real command line: where it pays, where it does not, and the file afterwards."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from e2e_tools import run_cli
from torch import nn
from torch.nn.functional import cross_entropy

import graftkit as gk

WIDE = 1024
AUGMENT = ("--data", "digits", "--dendrites", "full", "--freeze-base", "--cycles", "1", "--no-control", "--margin", "0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wide network that is right on most rows, with dendrites where most of its arithmetic is; and a small one."""
    folder = tmp_path_factory.mktemp("gate")
    for name, width, sites in (("wide", WIDE, "3"), ("small", 12, "*")):
        torch.save(_trained(width), folder / f"{name}.pt")
        done = run_cli("augment", f"{name}.pt", *AUGMENT, "--sites", sites, "--epochs", "3", "--out", name, cwd=folder)
        assert done.returncode == 0, done
    return folder


def _trained(width: int) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)
    )
    images, labels = (tensor[:300] for tensor in gk.load_data("digits").train.tensors)  # type: ignore[union-attr]
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    for _ in range(10):
        for start in range(0, len(images), 32):
            optimizer.zero_grad()
            cross_entropy(net(images[start : start + 32]), labels[start : start + 32]).backward()
            optimizer.step()
    return net.eval()


@pytest.fixture(scope="module")
def told(folder: Path) -> dict:
    done = run_cli("export", "wide", "--gate", "--tolerance", "0.01", "--threads", "1", "--json", cwd=folder)
    assert done.returncode == 0, done
    return json.loads(done.stdout)


def test_where_it_pays(folder: Path, told: dict) -> None:
    assert told["model"] == str(Path("wide") / "model-gate.onnx") and told["metric"] == "accuracy"
    gate = told["gate"]
    assert gate["pays"] and gate["chosen"]["latency"]["high"] < 1 and 0 < gate["chosen"]["share"] < 1
    assert gate["before"] - gate["chosen"]["metric"] <= 0.01 and set(gate["test"]) == {"before", "after"}
    assert len(gate["trials"]) == 7
    rows = np.random.default_rng(0).random((9, 1, 8, 8)).astype(np.float32)
    session = onnxruntime.InferenceSession(folder / told["model"])
    whole = session.run(None, {session.get_inputs()[0].name: rows})[0]
    for index in range(9):
        alone = session.run(None, {session.get_inputs()[0].name: rows[index : index + 1]})[0]
        np.testing.assert_allclose(alone, whole[index : index + 1], atol=1e-4)


def test_the_file_is_verified_inspected_and_measured(folder: Path, told: dict) -> None:
    words = ("verify", told["model"], "--against", "wide", "--runtime", "onnxruntime")
    refused = run_cli(*words, cwd=folder)
    assert refused.returncode == 1 and refused.last.startswith(
        "graftkit: the file (gate) says of itself that it may lose 0.01 of the metric, and no file is believed more"
        " than 0.005; accept it with --tolerance 0.01"
    ), refused
    verified = run_cli(*words, "--tolerance", "0.01", cwd=folder)
    assert verified.returncode == 0 and "the difference is expected: its gate leaves dendrites out" in verified.stdout
    shown = run_cli("inspect", told["model"], "--json", cwd=folder)
    sites = json.loads(shown.stdout)
    assert [site["site"] for site in sites["sites"] if site["dendrites"]] == ["3"]
    assert any(note.startswith("a gate runs the dendrites for rows") for note in sites["notes"])
    measured = run_cli("bench", "wide/model.onnx", told["model"], "--rounds", "20", "--no-memory", "--json", cwd=folder)
    ordinary, gated = json.loads(measured.stdout)["files"]
    assert gated["macs"] == ordinary["macs"] + 10 * WIDE and gated["nodes"] > ordinary["nodes"]


def test_every_runtime_that_is_there_agrees(folder: Path, told: dict) -> None:
    words = ("verify", told["model"], "--against", "wide", "--runtime", "all", "--tolerance", "0.01", "--json")
    found = json.loads(run_cli(*words, cwd=folder).stdout)["runtimes"]
    there = {name: check for name, check in found.items() if check["installed"]}
    assert {"onnxruntime", "reference"} <= set(there)
    for name, check in there.items():  # ncnn has no operator for it
        assert (check["loads"], check["trouble"] is None) == (name != "ncnn",) * 2, (name, check)


def test_a_file_that_was_changed_is_refused(folder: Path, told: dict) -> None:
    proto = onnx.load(folder / told["model"])
    weight = max(proto.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    changed = onnx.numpy_helper.to_array(weight) * np.float32(1.5)
    weight.CopyFrom(onnx.numpy_helper.from_array(changed, weight.name))
    onnx.save(proto, folder / "changed.onnx")
    done = run_cli("verify", "changed.onnx", "--against", "wide", "--tolerance", "0.01", cwd=folder)
    assert done.returncode == 1 and "gives outputs that differ by" in done.last, done


@pytest.mark.parametrize(("claimed", "why"), [(1, "says of itself that it may lose 1"), (0.005, "from 0.9")])
def test_a_forged_file_is_not_believed(folder: Path, claimed: float, why: str) -> None:
    """Weights turned round, and metadata that call it int8 and allow any loss, or as much as is believed."""
    proto = onnx.load(folder / "wide/model.onnx")
    weight = max(proto.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    weight.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(weight), weight.name))
    proto.metadata_props.add(key="graftkit.precision", value="int8")
    proto.metadata_props.add(key="graftkit.tolerance", value=str(claimed))
    onnx.save(proto, folder / "forged.onnx")
    words = ("verify", "forged.onnx", "--against", "wide")
    done = run_cli(*words, cwd=folder)
    assert done.returncode == 1 and why in done.last and "Traceback" not in done.stderr, done
    stricter = run_cli(*words, "--tolerance", "0.01", cwd=folder)
    assert stricter.returncode == 1 and stricter.last.endswith("and it may lose 0.01 at most"), stricter
    accepted = run_cli(*words, "--tolerance", "1", cwd=folder)
    assert accepted.returncode == 0, accepted


def test_where_it_does_not_pay(folder: Path) -> None:
    done = run_cli("export", "small", "--gate", "--tolerance", "0", "--out", "no.onnx", cwd=folder)
    assert done.returncode == 1 and "dendrites run for" in done.stdout and "Traceback" not in done.stderr, done
    assert done.last.startswith("graftkit: no gate that loses 0 of the metric at most saves time in onnxruntime")
    assert done.last.endswith("export without --gate") and not (folder / "no.onnx").exists()
    as_json = run_cli("export", "small", "--gate", "--tolerance", "0", "--out", "no.onnx", "--json", cwd=folder)
    found = json.loads(as_json.stdout)
    assert as_json.returncode == 1 and found["model"] is None and not found["gate"]["pays"]


def test_what_does_not_go_together(folder: Path) -> None:
    both = run_cli("export", "wide", "--gate", "--precision", "int8", cwd=folder)
    assert both.returncode == 2 and "--gate is for files in fp32" in both.stderr
    alone = run_cli("export", "wide", "--threads", "2", cwd=folder)
    assert alone.returncode == 2 and "--layout auto and --gate measure" in alone.stderr
    there = run_cli("export", "wide", "--gate", "--out", "wide.pt", cwd=folder)
    assert there.returncode == 1 and "exists already; pass --force" in there.last
