"""Dendrites alone, by the command line: from a run into a file, and from the file onto the base again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from e2e_tools import Finished, run_cli

import graftkit as gk

ROWS = np.random.default_rng(0).random((5, 1, 8, 8), dtype=np.float32)


def answers(path: Path) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: ROWS})[0]


def refused(done: Finished) -> str:
    assert (done.returncode, done.stdout) == (1, ""), done
    assert done.last.startswith("graftkit: ") and done.stderr.count("graftkit: ") == 1, done
    return done.last


@pytest.fixture(scope="module")
def anna(runs, workshop: Path) -> Path:
    """The file of a run whose base stood still."""
    assert runs["frozen_base"].returncode == 0, runs["frozen_base"]
    done = run_cli("export", "frozen_base", "--dendrites-only", "--out", "anna.safetensors", "--json", cwd=workshop)
    assert done.returncode == 0, done
    told = json.loads(done.stdout)
    assert (
        told["dendrites"] and told["base"] == "weak" and told["bytes"] == (workshop / "anna.safetensors").stat().st_size
    )
    return workshop / "anna.safetensors"


@pytest.mark.runs("frozen_base")
def test_the_base_and_the_file_are_the_runs_model(anna: Path, workshop: Path) -> None:
    expected = answers(workshop / "frozen_base/model.onnx")
    model = gk.load_dendrites(gk.load(workshop / "weak.pt"), anna).eval()
    with torch.no_grad():
        np.testing.assert_allclose(model(torch.from_numpy(ROWS)).numpy(), expected, atol=1e-5, rtol=1e-5)
    compared = ("nets:build", "--weights", "state.pt", "--data", "digits", "--opset", "18")  # the same numbers
    for name, words in (("plain.onnx", ("weak.pt",)), ("compared.onnx", compared)):
        done = run_cli("export", *words, "--dendrites", anna, "--out", name, cwd=workshop)
        assert done.returncode == 0 and done.stdout.startswith(f"Written: {name} (opset "), done
        np.testing.assert_allclose(answers(workshop / name), expected, atol=1e-5, rtol=1e-5)
    assert [s.dendrites for s in gk.inspect(workshop / "plain.onnx").sites if s.dendrites]
    again = refused(run_cli("export", "weak.pt", "--dendrites", anna, "--out", "plain.onnx", cwd=workshop))
    assert "plain.onnx exists already; pass --force" in again


@pytest.mark.runs("frozen_base")
def test_what_is_in_the_file(anna: Path, workshop: Path) -> None:
    table, told = (run_cli("inspect", anna.name, *more, cwd=workshop) for more in ((), ("--format", "json")))
    assert table.returncode == told.returncode == 0, (table, told)
    found, metrics = json.loads(told.stdout), json.loads((workshop / "frozen_base/metrics.json").read_text())
    assert found["format"] == "dendrites" and found["scores"]["metric"] == "accuracy"
    assert found["scores"]["given"] == {key: metrics["baseline"][key] for key in ("validation", "test")}
    assert found["scores"]["grafted"] == {key: metrics["grafted"][key] for key in ("validation", "test")}
    added = metrics["grafted"]["parameters"] - metrics["baseline"]["parameters"]
    assert found["parameters"] == added and f"{added:,} parameters" in table.stdout
    assert all(d["site"] in table.stdout and d["kind"] in table.stdout for d in found["dendrites"])
    assert "For the base weak" in table.stdout and "Measured accuracy" in table.stdout and "\x1b" not in table.stdout
    picture = run_cli("inspect", anna.name, "--format", "svg", cwd=workshop)
    assert picture.returncode == 2 and "has no picture" in picture.last


@pytest.mark.runs("frozen_base", "weak")
def test_what_does_not_go_together(anna: Path, runs, workshop: Path) -> None:
    other = refused(run_cli("export", "three.pt", "--dendrites", anna, "--out", "no.onnx", cwd=workshop))
    assert "anna.safetensors is for another base: weak" in other
    assert "there is no file" in refused(
        run_cli("export", "weak.pt", "--dendrites", "x", "--out", "no.onnx", cwd=workshop)
    )
    cut = workshop / "cut.safetensors"
    cut.write_bytes(anna.read_bytes()[:-7])
    assert "no safetensors file that can be read" in refused(
        run_cli("export", "weak.pt", "--dendrites", cut, "--out", "no.onnx", cwd=workshop)
    )
    assert runs["weak"].returncode == 0
    trained = refused(run_cli("export", "weak", "--dendrites-only", "--out", "no.safetensors", cwd=workshop))
    assert "weak trained its base, too" in trained and "--freeze-base" in trained
    assert not list(workshop.glob("no.*")) and not list(workshop.glob(".no.*"))


@pytest.mark.runs("frozen_base")
def test_a_runs_folder_keeps_its_file_and_can_still_be_replaced(runs, workshop: Path) -> None:
    assert runs["frozen_base"].returncode == 0
    shutil.copytree(workshop / "frozen_base", workshop / "own_dendrites")
    done = run_cli("export", "own_dendrites", "--dendrites-only", cwd=workshop)
    assert done.returncode == 0 and done.stdout.startswith("Written: own_dendrites/dendrites.safetensors ("), done
    content = (workshop / "own_dendrites/dendrites.safetensors").read_bytes()
    assert "exists already; pass --force" in refused(
        run_cli("export", "own_dendrites", "--dendrites-only", cwd=workshop)
    )
    assert run_cli("export", "own_dendrites", "--dendrites-only", "--force", cwd=workshop).returncode == 0
    assert (workshop / "own_dendrites/dendrites.safetensors").read_bytes() == content
    (workshop / "own_dendrites/plan.json").write_text('{"version": 1, "grafts": []}')
    nothing = refused(run_cli("export", "own_dendrites", "--dendrites-only", "--force", cwd=workshop))
    assert "ships a model without dendrites" in nothing
    assert (workshop / "own_dendrites/dendrites.safetensors").read_bytes() == content
    assert "is not a run's folder" in refused(run_cli("export", "images", "--dendrites-only", cwd=workshop))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("run", "--dendrites-only", "--opset", "18"), "--dendrites-only writes no ONNX file; leave out --opset"),
        (("run", "--dendrites-only", "--dendrites", "x"), "leave out --dendrites"),
        (("run", "--data", "digits"), "without --dendrites FILE the model is a run's; leave out --data"),
        (("run", "--arch", "nets:build"), "leave out --arch"),
        (("weak.pt", "--dendrites", "x"), "name the file with --out"),
        (("weak.pt", "--dendrites", "x", "--out", "y", "--precision", "int8"), "name some with --data"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_options_that_contradict_each_other(tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    done = run_cli("export", *words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "") and says in done.stderr.replace("\n", " "), done
    assert list(tmp_path.iterdir()) == []
