"""`graftkit compress` through the real command line: a smaller model, its folder as a run and as a model, refusals."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from e2e_tools import GRAFTKIT, SAMPLES, environment, run_cli

import graftkit as gk

QUICK = ("--epochs", "2", "--steps", "2", "--sparsity", "0")
UNTRAINED = ("--epochs", "1", "--learning-rate", "1e-9", "--sparsity", "0", "--no-dendrites", "--no-scratch")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a compression of the MLP to half of its parameters lies, with what it printed."""
    folder = tmp_path_factory.mktemp("compress")
    done = run_cli("compress", SAMPLES / "mlp.pt", "--keep", "50%", *QUICK, "--out", "small", cwd=folder)
    assert done.returncode == 0, done
    (folder / "told.txt").write_text(done.stdout)
    (folder / "progress.txt").write_text(done.stderr)
    return folder


def parameters(path: Path) -> int:
    return sum(int(np.prod(tensor.dims)) for tensor in onnx.load(path).graph.initializer)


def test_it_is_really_smaller_and_says_what_each_part_brought(folder: Path) -> None:
    told = (folder / "told.txt").read_text()
    report = json.loads((folder / "small" / "metrics.json").read_text())
    size = report["sizes"][0]
    assert report["given"]["parameters"] == 2778 and size["pruned"]["parameters"] <= 1389
    assert parameters(folder / "small" / "model.onnx") <= 1389 + 16  # a reshape's numbers may be among them
    assert f"goes from 2,778 to {size['pruned']['parameters']:,} parameters" in told
    assert "same shape from scratch" in told and "Verified against" in told
    assert size["contest"] is not None and size["scratch"]["epochs"] == size["pruned"]["epochs"] == 8
    for name in ("given", "pruned", "scratch"):
        row = report[name] if name == "given" else size[name]
        assert row["latency"] > 0 and row["p90"] >= row["latency"] and row["size"] > 0
    page = (folder / "small" / "report.html").read_text()
    assert "Layers, widths to scale" in page and page.count("<svg") == 2
    assert "\x1b" not in told and "\x1b" not in (folder / "progress.txt").read_text()


def test_the_file_computes_what_the_folder_holds(folder: Path) -> None:
    done = run_cli("verify", "small", "--runtime", "onnxruntime", "--runtime", "reference", cwd=folder)
    assert done.returncode == 0 and "yes" in done.stdout, done
    report = json.loads((folder / "small" / "metrics.json").read_text())
    images, labels = gk.load_data("digits").validation.tensors  # type: ignore[union-attr]
    session = onnxruntime.InferenceSession(folder / "small" / "model.onnx")
    said = session.run(None, {session.get_inputs()[0].name: images.numpy()})[0]
    score = float((said.argmax(1) == labels.numpy()).mean())
    chosen = report["sizes"][0]["grafted" if report["sizes"][0]["chosen"] == "grafted" else "pruned"]
    assert score == pytest.approx(chosen["validation"], abs=1e-9)


def test_the_folder_is_a_run_and_a_model(folder: Path) -> None:
    done = run_cli("inspect", "small", "--format", "json", cwd=folder)
    assert done.returncode == 0 and json.loads(done.stdout)["parameters"] <= 1389, done
    done = run_cli("export", "small", "--opset", "18", "--out", "again.onnx", cwd=folder)
    assert done.returncode == 0 and onnx.load(folder / "again.onnx").opset_import[0].version == 18, done
    done = run_cli("bench", "small", "small/model.onnx", "--rounds", "20", cwd=folder)
    assert done.returncode == 0 and "small: given" in done.stdout, done
    assert "2,780" in done.stdout  # the model as it was before, and two numbers of a reshape
    if json.loads((folder / "small" / "plan.json").read_text())["grafts"]:
        return  # with dendrites it is no plain model, which is told in another test
    loaded = gk.load(folder / "small").model.eval()
    images = gk.load_data("digits").validation.tensors[0][:50]  # type: ignore[union-attr]
    session = onnxruntime.InferenceSession(folder / "small" / "model.onnx")
    said = session.run(None, {session.get_inputs()[0].name: images.numpy()})[0]
    with torch.no_grad():
        np.testing.assert_allclose(loaded(images).numpy(), said, atol=1e-4)
    done = run_cli("augment", "small", "--epochs", "1", "--cycles", "1", "--out", "grown", "--json", cwd=folder)
    assert done.returncode == 0, done
    assert (
        json.loads(done.stdout)["baseline"]["parameters"]
        == json.loads((folder / "small" / "metrics.json").read_text())["sizes"][0]["pruned"]["parameters"]
    )
    done = run_cli("verify", "grown", cwd=folder)
    assert done.returncode == 0, done


def killed(folder: Path, words: list[str], name: str) -> None:
    """Begin a compression and kill it once it has cut and trained something."""
    process = subprocess.Popen(
        [GRAFTKIT, *words], cwd=folder, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    ended = time.monotonic() + 240
    while not any((folder / name).glob("checkpoint/progress/*step-1-ended*.json")) and time.monotonic() < ended:
        assert process.poll() is None
        time.sleep(0.1)
    process.kill()
    process.wait()


def test_a_run_that_was_killed_ends_in_the_same_file(folder: Path) -> None:
    killed(folder, ["compress", str(SAMPLES / "mlp.pt"), "--keep", "50%", *QUICK, "--out", "killed"], "killed")
    refused = run_cli("augment", "--resume", "killed", cwd=folder)
    assert refused.returncode == 1 and "graftkit compress --resume" in refused.last, refused
    refused = run_cli("compress", SAMPLES / "mlp.pt", "--out", "killed", cwd=folder)
    assert refused.returncode == 1 and "graftkit compress --resume" in refused.last, refused
    done = run_cli("compress", "--resume", "killed", cwd=folder)
    assert done.returncode == 0, done
    assert (folder / "killed" / "model.onnx").read_bytes() == (folder / "small" / "model.onnx").read_bytes()
    again = run_cli("compress", "--resume", "killed", cwd=folder)
    assert again.returncode == 0 and "came to its end before" in again.stdout


LOADERS = """
import torch
import graftkit as gk
from torch.utils.data import DataLoader

def make():
    rows = gk.load_data("digits")
    shuffled = DataLoader(rows.train, 64, shuffle=True, generator=torch.Generator().manual_seed(0))
    return shuffled, DataLoader(rows.validation, 64)
"""


def test_what_clocks_and_shuffled_rows_decided_stays_decided(folder: Path) -> None:
    """A target that is measured, and rows in another order the second time: what was cut before is what goes on."""
    (folder / "loaders.py").write_text(LOADERS)
    words = ["--data", "loaders.py:make", "--target", "latency=90%", *QUICK, "--no-scratch", "--no-dendrites"]
    torch.save(_wide(), folder / "wide.pt")
    killed(folder, ["compress", "wide.pt", *words, "--out", "timed"], "timed")
    done = run_cli("compress", "--resume", "timed", "--json", cwd=folder)
    assert done.returncode == 0, done
    report = json.loads(done.stdout)
    assert report["sizes"][0]["pruned"]["parameters"] < report["given"]["parameters"]
    assert run_cli("verify", "timed", cwd=folder).returncode == 0


def _wide() -> torch.nn.Module:
    """Wide enough for a clock to see what goes."""
    torch.manual_seed(0)
    nn = torch.nn
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)
    )


def test_the_front_falls_and_its_knee_ships(folder: Path) -> None:
    quick = ("--epochs", "1", "--sparsity", "0", "--no-dendrites", "--no-scratch", "--json")
    done = run_cli("compress", SAMPLES / "cnn.pt", "--front", *quick, "--out", "front", cwd=folder)
    assert done.returncode == 0, done
    report = json.loads(done.stdout)
    counts = [size["pruned"]["parameters"] for size in report["sizes"]]
    assert counts == sorted(counts, reverse=True) and len(counts) >= 6 and counts[0] == 1532
    assert report["knee"] == report["shipped"]
    assert onnx.load(folder / "front" / "model.onnx").graph.initializer
    files = {path.name: parameters(path) for path in (folder / "front" / "front").iterdir()}
    wanted = {f"model-{100 * size['share']:.0f}.onnx": size["pruned"]["parameters"] for size in report["sizes"]}
    assert files.keys() == wanted.keys()
    assert all(files[name] <= count + 16 for name, count in wanted.items())  # norms are folded; a reshape has numbers
    assert [files[name] for name in wanted] == sorted(files.values(), reverse=True)
    knee = [*wanted][report["knee"]]
    assert files[knee] == parameters(folder / "front" / "model.onnx")
    assert "knee" in (folder / "front" / "report.html").read_text()
    run = json.loads((folder / "front" / "inspection.json").read_text())
    assert run["parameters"] == counts[report["shipped"]]


def test_the_smallest_within_a_loss(folder: Path) -> None:
    quick = ("--epochs", "1", "--sparsity", "0", "--no-dendrites", "--no-scratch", "--json")
    words = ("--max-loss", "3", "--target", "macs", *quick, "--out", "least")
    done = run_cli("compress", SAMPLES / "mlp.pt", *words, cwd=folder)
    assert done.returncode == 0, done
    report = json.loads(done.stdout)
    within = [s for s in report["sizes"] if report["given"]["validation"] - s["pruned"]["validation"] <= 0.03]
    ships = report["sizes"][report["shipped"]]
    assert ships in within and ships["amount"] == min(size["amount"] for size in within)
    assert len(within) < len(report["sizes"])  # it did look beyond


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("mlp.pt", "--keep", "0"), 1, "is no positive number"),
        (("mlp.pt", "--keep", "150%"), 1, "more than 100%"),
        (("mlp.pt", "--target", "parameters=20"), 1, "is the smallest that pruning reaches"),
        (("mlp.pt", "--target", "parameters=1M"), 1, "would be no smaller"),
        (("mlp.pt", "--target", "weight=3"), 1, "unknown target"),
        (("mlp.pt", "--target", "macs=+10%"), 1, "a target is what is left"),
        (("gru.pt", "--trust"), 1, "its channels: it does not know gru (GRU))"),
        (("mlp.pt", "--max-loss", "nan"), 2, "'nan' is not a finite number"),
        (("cnn.pt", "--max-loss", "0", *UNTRAINED), 1, "no smaller model within 0 points was found; the nearest had"),
        (("graph.onnx",), 1, "give the module"),
        (("mlp.pt", "--keep", "40%", "--target", "macs=50%"), 2, "give one"),
        (("mlp.pt", "--front", "--keep", "40%"), 2, "looks for sizes itself"),
        (("mlp.pt", "--front", "--max-loss", "1"), 2, "give one"),
        ((), 2, "Missing argument"),
        (("--resume", "nothing"), 1, "nothing holds no run that could go on"),
        (("--resume", "small", "--epochs", "3"), 2, "leave out --epochs"),
        (("mlp.pt", "--front", "--steps", "3"), 2, "leave out --steps"),
    ],
)
def test_what_cannot_be_done_is_one_line(folder: Path, words: tuple[str, ...], code: int, said: str) -> None:
    graph = folder / "graph.onnx"
    if "graph.onnx" in words and not graph.exists():
        graph.write_bytes((folder / "small" / "model.onnx").read_bytes())
    given = [SAMPLES / word if word in ("mlp.pt", "cnn.pt", "gru.pt") else word for word in words]
    out = () if "--resume" in words or not words else ("--out", "refused")
    done = run_cli("compress", *given, *out, cwd=folder)
    assert done.returncode == code and said in done.last, done
    assert "Traceback" not in done.stderr
    assert not (folder / "refused").exists()


def test_its_networks_are_evaluated_side_by_side(folder: Path) -> None:
    words = ("--shares", "20%,100%", "--seeds", "1", "--epochs", "3", "--form", "values")
    done = run_cli("evaluate", "small", *words, "--json", cwd=folder)
    assert done.returncode == 0, done
    report = json.loads(done.stdout)
    names = ["given", "same shape from scratch", *list(report["parameters"])[2:]]
    assert list(report["parameters"]) == names and names[2] in ("pruned", "pruned + dendrites")
    assert report["parameters"]["given"] == 2778 and report["parameters"][names[2]] <= 1389
    clean = report["corrupted"]["clean"]
    told = json.loads((folder / "small" / "metrics.json").read_text())
    size = told["sizes"][0]
    shipped = size["grafted"] if size["chosen"] == "grafted" else size["pruned"]
    wanted = [told["given"]["test"], size["scratch"]["test"], shipped["test"]]
    assert [clean[name] for name in names] == pytest.approx(wanted)
    assert [(r["share"], r["epochs"]) for r in report["few"]] == [
        (0.2, 13),
        (1.0, 3),
    ]  # as many steps: 13 of 4, 3 of 17
    assert all(list(r["test"]) == ["shape of given", f"shape of {names[2]}"] for r in report["few"])
    assert run_cli("inspect", "small", cwd=folder).returncode == 0
