"""A GPU, where there is one: runs on it end, ship what was trained, go on after a kill, and agree with the CPU."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from e2e_tools import GRAFTKIT, SAMPLES, environment, run_cli
from torch import nn
from torch.nn.functional import cross_entropy

import graftkit as gk
from graftkit import training
from graftkit.schedules import Rounds

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU that torch can use")

ASKED = ("weak.pt", "--data", "rows.npz", "--margin", "0", "--device", "cuda")
WAYS = {
    "full": ("--dendrites", "full"),
    "pointwise": ("--dendrites", "pointwise"),
    "lowrank": ("--dendrites", "lowrank"),
    "gate": ("--dendrites", "context:mode=gate", "--sites", "*"),
    "correlation": ("--dendrites", "full", "--rule", "correlation"),
    "budget": ("--budget", "parameters=+30%"),
    "frozen": ("--dendrites", "full", "--freeze-base"),
    "bf16": ("--dendrites", "full", "--precision", "bf16-mixed"),
    "deterministic": ("--dendrites", "full", "--deterministic"),
    "repeated": ("--dendrites", "full", "--seeds", "2", "--shrink", "0.3", "--label-smoothing", "0.1"),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_run_on_it_ends_and_ships_what_was_trained(workshop: Path, way: str) -> None:
    done = run_cli("augment", *ASKED, *WAYS[way], "--epochs", "10", "--out", f"cuda-{way}", cwd=workshop)
    assert done.returncode == 0 and "Warning" not in done.stderr, done
    verified = run_cli("verify", f"cuda-{way}", cwd=workshop)
    assert verified.returncode == 0, verified


def test_it_agrees_with_the_processor(workshop: Path) -> None:
    found = {}
    for device in ("cpu", "cuda"):
        words = (*ASKED[:-1], device, "--dendrites", "full", "--epochs", "3", "--cycles", "1", "--deterministic")
        done = run_cli("augment", *words, "--out", f"on-{device}", cwd=workshop)
        assert done.returncode == 0, done
        lines = (workshop / f"on-{device}/history.jsonl").read_text().splitlines()
        found[device] = [json.loads(line) for line in lines]
    assert len(found["cpu"]) == len(found["cuda"])
    assert (workshop / "on-cpu/plan.json").read_bytes() == (workshop / "on-cuda/plan.json").read_bytes()
    for mine, theirs in zip(found["cpu"], found["cuda"], strict=True):
        assert _numbers(mine) == pytest.approx(_numbers(theirs), rel=1e-2, abs=1e-3)


def _numbers(record: Any) -> list[float]:
    """All numbers of a line of the history but times."""
    if isinstance(record, dict):
        return [x for key, value in record.items() if "seconds" not in key for x in _numbers(value)]
    if isinstance(record, list):
        return [x for value in record for x in _numbers(value)]
    return [float(record)] if isinstance(record, int | float) and not isinstance(record, bool) else []


def test_killed_on_it_a_run_comes_to_the_same_file(workshop: Path) -> None:
    words = (*ASKED, "--dendrites", "full", "--deterministic", "--epochs", "40", "--batch-size", "8")
    whole = run_cli("augment", *words, "--out", "cuda-whole", cwd=workshop)
    assert whole.returncode == 0, whole
    line = [GRAFTKIT, "augment", *words, "--out", "cuda-killed"]
    process = subprocess.Popen(line, cwd=workshop, env=environment(), stderr=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while not any((workshop / "cuda-killed").glob("checkpoint/progress/*.json")):
        assert process.poll() is None and time.monotonic() < end, "it never came to a checkpoint"
        time.sleep(0.02)
    time.sleep(1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    resumed = run_cli("augment", "--resume", "cuda-killed", cwd=workshop)
    assert resumed.returncode == 0, resumed
    for name in ("model.onnx", "history.jsonl", "metrics.json", "plan.json"):
        assert (workshop / "cuda-whole" / name).read_bytes() == (workshop / "cuda-killed" / name).read_bytes(), name


def test_torchrun_and_nccl(workshop: Path) -> None:
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1", "-m", "graftkit"]
    words = (*ASKED, "--dendrites", "full", "--epochs", "3", "--out", "cuda-nccl")
    done = subprocess.run([*line, "augment", *words], cwd=workshop, env=environment(), capture_output=True, text=True,
                          timeout=240, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert run_cli("verify", "cuda-nccl", cwd=workshop).returncode == 0


QUICK = ("--epochs", "2", "--steps", "2", "--device", "cuda")
AIMS = {
    "mlp": ("--keep", "50%"),
    "cnn": ("--target", "macs=60%", "--importance", "taylor"),
    "vit": ("--keep", "70%", "--trust"),
}


@pytest.mark.parametrize("model", AIMS)
def test_a_network_is_compressed_and_measured_on_it(model: str, tmp_path: Path) -> None:
    done = run_cli("compress", SAMPLES / f"{model}.pt", *AIMS[model], *QUICK, "--out", "small", cwd=tmp_path)
    assert done.returncode == 0 and "Warning" not in done.stderr, done
    report = json.loads((tmp_path / "small/metrics.json").read_text())
    assert report["sizes"][0]["pruned"]["parameters"] < report["given"]["parameters"]
    verified = run_cli("verify", "small", *(["--trust"] if "--trust" in AIMS[model] else []), cwd=tmp_path)
    assert verified.returncode == 0, verified


def test_a_front_is_made_on_it(tmp_path: Path) -> None:
    words = ("--front", "--epochs", "1", "--device", "cuda", "--out", "curve")
    done = run_cli("compress", SAMPLES / "mlp.pt", *words, cwd=tmp_path)
    assert done.returncode == 0 and list((tmp_path / "curve/front").glob("model-*.onnx")), done


@pytest.mark.parametrize("model", ["cnn", "mlp"])
def test_a_run_is_evaluated_on_it_and_gives_what_the_processor_gives(model: str, tmp_path: Path) -> None:
    words = ("--epochs", "3", "--cycles", "1", "--margin", "0", "--device", "cuda", "--out", "run")
    done = run_cli("augment", SAMPLES / f"{model}.pt", *words, cwd=tmp_path)
    assert done.returncode == 0, done
    found = []
    for device in ("cuda", "cpu"):
        done = run_cli("evaluate", "run", "--only", "corruptions", "--device", device, "--json", cwd=tmp_path)
        assert done.returncode == 0, done
        found.append(json.loads(done.stdout)["corrupted"])
    assert _numbers(found[0]["clean"]) == pytest.approx(_numbers(found[1]["clean"]), abs=0.01)
    assert _numbers(found[0]["strengths"]) == pytest.approx(_numbers(found[1]["strengths"]), abs=0.02)
    few = ("--only", "few", "--shares", "25%,100%", "--seeds", "1", "--epochs", "2", "--device", "cuda")
    done = run_cli("evaluate", "run", *few, cwd=tmp_path)
    assert done.returncode == 0 and "25% of the rows" in done.stdout, done


def _grown(how: str) -> tuple[gk.Grower, list[float]]:
    """Two growths in a loop of one's own, on the GPU."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2)).cuda()
    rows = torch.randn(64, 4, generator=torch.Generator().manual_seed(1)).cuda()
    words = (rows[:, 0] * rows[:, 1] > 0).long()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, fused=how == "fused")
    schedule = Rounds(epochs=1, dendrites=2)
    growing = gk.Grower(model, rows[:2], optimizer, schedule=schedule, dendrites="full", sites=("0", "3"))
    called = torch.compile(growing.model) if how == "compile" else growing.model
    scaler = torch.amp.GradScaler("cuda", enabled=how == "fp16")
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(how)
    losses = []
    for score in (0.5, 0.6, 0.7):
        for _ in range(5):
            optimizer.zero_grad()
            with torch.autocast("cuda", dtype=dtype, enabled=dtype is not None):
                loss = cross_entropy(called(rows).float(), words)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            losses.append(float(loss.detach()))
        growing.step(score)
    return growing, losses


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # torch's own
@pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores:UserWarning")  # torch's advice, where it compiles
@pytest.mark.parametrize("how", ["plain", "fused", "compile", "bf16", "fp16"])
def test_a_grower_grows_on_it(how: str, tmp_path: Path) -> None:
    growing, losses = _grown(how)
    assert losses == pytest.approx(_grown("plain")[1], rel=0.05)
    assert all(p.is_cuda for p in growing.model.parameters())
    growing.save(tmp_path, epochs=3)
    growing.finish()
    growing.export(tmp_path / "grown.onnx")
    rows = torch.randn(5, 4)
    session = onnxruntime.InferenceSession(tmp_path / "grown.onnx", providers=["CPUExecutionProvider"])
    (answer,) = session.run(None, {session.get_inputs()[0].name: rows.numpy()})
    with torch.no_grad():
        wanted = growing.model.eval()(rows.cuda()).cpu()
    torch.testing.assert_close(torch.from_numpy(answer), wanted, rtol=1e-4, atol=1e-5)


def test_a_model_moves_there_and_back(tmp_path: Path) -> None:
    """Batch norms, and positions that the graph makes anew, with the optimizer that was there before."""

    class Placed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.head = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.relu(self.norm(self.conv(x))).mean((2, 3))
            return self.head(x) + torch.arange(3, device=x.device)

    torch.manual_seed(0)
    traced = gk.trace(Placed(), torch.randn(2, 1, 6, 6))
    model, x = gk.graft(traced, gk.make_plan(traced, dendrites="full", sites="*")), torch.randn(5, 1, 6, 6)
    optimizer, here = torch.optim.SGD(model.parameters(), lr=0.01), model.eval()(x)
    model.cuda()
    torch.testing.assert_close(model(x.cuda()).cpu(), here, rtol=1e-2, atol=1e-2)  # convolutions there round to TF32
    cross_entropy(model.train()(x.cuda()), torch.zeros(5, dtype=torch.long, device="cuda")).backward()
    optimizer.step()
    there = model.eval()(x.cuda()).cpu()
    torch.testing.assert_close(model.cpu()(x), there, rtol=1e-2, atol=1e-2)
    assert gk.verify(gk.export(model, tmp_path / "model.onnx"), model)["onnxruntime"] < 1e-4


def test_a_file_is_compared_with_what_whole_numbers_give(tmp_path: Path) -> None:
    """Convolutions there round to TF32, which would part from any runtime by a thousandth; rows may lie there, too."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 32, 5), nn.ReLU(), nn.Conv2d(32, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 3))
    images, labels = torch.randn(64, 3, 12, 12), torch.randint(0, 3, (64,))
    traced = gk.trace(net, images[:2], device="cuda")
    model = gk.graft(traced, gk.make_plan(traced, dendrites="full", sites="*"))
    torch.set_float32_matmul_precision("high")
    try:
        assert gk.verify(gk.export(model, tmp_path / "model.onnx"), model)["onnxruntime"] < 1e-5
        assert torch.get_float32_matmul_precision() == "high" and torch.backends.cudnn.allow_tf32
    finally:
        torch.set_float32_matmul_precision("highest")
    rows = {name: torch.utils.data.TensorDataset(images.to(name), labels.to(name)) for name in ("cpu", "cuda")}
    accuracy, device = training.find_metric("accuracy"), torch.device("cuda")
    found = [training.evaluate(model, own, accuracy, device) for own in rows.values()]
    assert found[0] == found[1] > 0
