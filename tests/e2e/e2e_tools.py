"""What the end-to-end tests work with: the real command line, a folder of models and data, and a table of runs."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from command_server import CommandServer
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file
from torch import nn

SAMPLES = Path(__file__).parents[2] / "sample_models"
GRAFTKIT = Path(sys.executable).with_name("graftkit")
WORKERS = 2  # command lines at a time


@dataclass(frozen=True)
class Finished:
    """A command line that ended."""

    args: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str

    @property
    def last(self) -> str:
        """The last line on stderr."""
        return (self.stderr.splitlines() or [""])[-1]

    def __str__(self) -> str:
        return f"{self.args} gave {self.returncode}\n--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}"


def environment() -> dict[str, str]:
    """The caller's, as a user would have it: no PYTHONPATH, one thread, nothing said of colours or widths."""
    dropped = ("PYTHONPATH", "COLUMNS", "FORCE_COLOR", "NO_COLOR")
    return {**{k: v for k, v in os.environ.items() if k not in dropped}, "OMP_NUM_THREADS": "1"}


@functools.cache
def command_server() -> CommandServer:
    """Begun by the fixture `commands`, before any thread asks."""
    return CommandServer(environment())


def run_cli(*args: object, cwd: Path, timeout: float = 240, forked: bool = True) -> Finished:
    """Run `graftkit` as a user does, its output in files; in a process of its own if it may not be `forked`."""
    words = tuple(str(arg) for arg in args)
    if forked:
        return Finished(words, *command_server().run(GRAFTKIT, words, cwd, environment(), timeout))
    done = subprocess.run(
        [GRAFTKIT, *words], cwd=cwd, env=environment(), capture_output=True, text=True, timeout=timeout, check=False
    )
    return Finished(words, done.returncode, done.stdout, done.stderr)


class Lane:
    """Command lines that are started together, two at a time, and asked for by name."""

    def __init__(self, cases: Iterable[str], run: Callable[[str], Finished]):
        self._run = run
        self._pool = ThreadPoolExecutor(WORKERS)
        self._started: dict[str, Future[Finished]] = {name: self._pool.submit(run, name) for name in cases}

    def __getitem__(self, name: str) -> Finished:
        if name not in self._started:
            self._started[name] = self._pool.submit(self._run, name)
        return self._started[name].result()

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


def wanted(request: pytest.FixtureRequest, parameter: str) -> list[str]:
    """The names that the selected tests ask for, by the `runs` marker or by a parameter of that name."""
    names: dict[str, None] = {}
    for item in request.session.items:
        for mark in item.iter_markers("runs"):
            names.update(dict.fromkeys(mark.args))
        value = getattr(item, "callspec", None) and item.callspec.params.get(parameter)
        if isinstance(value, str):
            names[value] = None
    return list(names)


ONCE = ("--epochs", "1", "--cycles", "1", "--no-control")
FEW_ROWS = ("--epochs", "6", "--cycles", "1", "--no-control", "--batch-size", "16", "--learning-rate", "0.01")
SHORT = ("--epochs", "2", "--cycles", "1")

KINDS = ("--dendrites", "conv=context:units=2", "--dendrites", "linear=lowrank:rank=2")  # whatever the defaults become

# Name of a run (and of its folder) -> what follows `graftkit augment`.
RUNS: dict[str, tuple[str, ...]] = {
    "cnn": ("cnn.pt", *SHORT, "--json"),
    "mlp": ("mlp.pt", *SHORT, "--json"),
    "vit": ("vit.pt", "--trust", *SHORT, "--json"),
    "gru": ("gru.pt", "--trust", *SHORT, "--json"),
    "cnn_bf16": ("cnn.pt", *ONCE, "--precision", "bf16-mixed", "--opset", "17", "--json"),
    "mlp_bf16": ("mlp.pt", *ONCE, "--precision", "bf16-mixed", "--opset", "18", "--json"),
    "vit_bf16": ("vit.pt", "--trust", *ONCE, "--precision", "bf16-mixed", "--opset", "23", "--json"),
    "gru_bf16": ("gru.pt", "--trust", *ONCE, "--precision", "bf16-mixed", "--opset", "23", "--json"),
    "weak": ("weak.pt", *SHORT, *KINDS, "--seed", "3"),
    "weak_again": ("weak.pt", *SHORT, *KINDS, "--seed", "3", "--json"),
    "correlation": ("weak.pt", *SHORT, "--no-control", "--rule", "correlation", "--cache-memory", "1kB"),
    "seeds": ("weak.pt", *SHORT, *KINDS, "--seeds", "2", "--no-control", "--max-parameters", "+5%"),
    "budget": ("weak.pt", "--epochs", "8", "--batch-size", "16", "--budget", "parameters=+8%"),
    "shrunk": (
        "weak.pt",
        *SHORT,
        "--shrink",
        "0.3",
        "--label-smoothing",
        "0.1",
        "--dendrites",
        "context:mode=gate+full",
    ),
    "frozen_base": ("weak.pt", *SHORT, *KINDS, "--freeze-base", "--margin", "0"),
    "chosen": (
        *("weak.pt", *ONCE, "--sites", "0", "--sites", "[46]", "--sites", "!4", "--join", "call"),
        *("--dendrites", "conv=pointwise", "--dendrites", "linear=lowrank:rank=3"),
    ),
    "program": ("program.pt2", *ONCE),
    "state": ("nets:build", "--weights", "state.pt", *FEW_ROWS, "--data", "rows.npz"),
    "safe": ("nets:regress", "--weights", "regress.safetensors", *SHORT, "--data", "values.npz"),
    "given_names": (
        *("nets:regress", *ONCE, "--data", "values.npz"),
        *("--loss", "nets:half_mse", "--metric", "nets:negative_mae"),
    ),
    "folder": ("three.pt", *FEW_ROWS, "--data", "images"),
    "function": ("weak.pt", *FEW_ROWS, "--data", "rows.py:datasets"),
    "loaders": ("weak.pt", *FEW_ROWS, "--data", "rows.py:loaders"),
}


def fill_workshop(folder: Path) -> None:
    """Put in the sample models, models and data of our own, and what is wrong with either."""
    for file in (*SAMPLES.glob("*.pt"), *SAMPLES.glob("*.py")):
        shutil.copy(file, folder)  # the samples may be trained anew while we run
    _models(folder)
    _data(folder)
    _broken_models(folder)
    _broken_data(folder)
    _foreign_onnx(folder)


def weak(classes: int = 10) -> nn.Sequential:
    """Untrained, so that training it gains something and what is grafted ships; [N, 1, 8, 8] to [N, classes]."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, 16),
        nn.ReLU(),
        nn.Linear(16, classes),
    )


def _models(folder: Path) -> None:
    torch.save(weak(), folder / "weak.pt")
    torch.save(weak(3), folder / "three.pt")
    torch.save(weak().state_dict(), folder / "state.pt")
    batch = torch.export.Dim("batch", min=1)
    example = (torch.zeros(2, 1, 8, 8),)
    trained = torch.load(folder / "cnn.pt", weights_only=False).eval()
    torch.export.save(torch.export.export(trained, example, dynamic_shapes=({0: batch},)), folder / "program.pt2")
    (folder / "nets.py").write_text(
        textwrap.dedent("""
        from torch import nn

        def build():
            return nn.Sequential(
                nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
                nn.Linear(256, 16), nn.ReLU(), nn.Linear(16, 10),
            )

        def regress():
            return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))

        def entropy(outputs, targets):
            return nn.functional.cross_entropy(outputs, targets)

        def half_mse(outputs, targets):
            return 0.5 * ((outputs - targets) ** 2).mean()

        def negative_mae(outputs, targets):
            return -float((outputs - targets).abs().mean())
        """)
    )
    torch.manual_seed(1)
    regress = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))
    save_file(regress.state_dict(), folder / "regress.safetensors")


def _pixels(rows: int, classes: int = 10, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(uint8 [rows, 8, 8], int64 [rows]) where a bright row and column tell the class."""
    random = np.random.default_rng(seed)
    labels = np.arange(rows) % classes
    images = random.integers(0, 60, (rows, 8, 8), dtype=np.uint8)
    images[np.arange(rows), labels % 8] = 200
    images[np.arange(rows), :, labels // 2] = 255
    return images, labels.astype(np.int64)


def _data(folder: Path) -> None:
    x, y = _pixels(200)
    np.savez(folder / "rows.npz", x_train=x, y_train=y, x_test=x[:40], y_test=y[:40])
    random = np.random.default_rng(0)
    inputs = random.normal(size=(240, 6)).astype(np.float32)
    targets = (inputs @ random.normal(size=6) + 0.1 * random.normal(size=240)).astype(np.float32)
    parts = {"train": slice(0, 160), "val": slice(160, 200), "test": slice(200, 240)}
    np.savez(
        folder / "values.npz",
        **{f"x_{name}": inputs[part] for name, part in parts.items()},
        **{f"y_{name}": targets[part] for name, part in parts.items()},
    )
    from PIL import Image

    images, labels = _pixels(60, 3)
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        where = folder / "images" / ("train" if index < 42 else "val") / f"class{label}"
        where.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(where / f"{index}.png")
    (folder / "rows.py").write_text(
        textwrap.dedent("""
        from pathlib import Path

        import numpy as np
        import torch
        from torch.utils.data import DataLoader, TensorDataset

        def datasets():
            found = np.load(Path(__file__).with_name("rows.npz"))
            x = torch.from_numpy(found["x_train"])[:, None].float() / 255
            y = torch.from_numpy(found["y_train"])
            return TensorDataset(x[:150], y[:150]), TensorDataset(x[150:], y[150:])

        def loaders():
            train, validation = datasets()
            return DataLoader(train, 32, shuffle=True), DataLoader(validation, 50)

        def raises():
            raise RuntimeError("no such table\\nin the database")
        """)
    )


class _Hostile:
    """Runs a shell command when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch pwned",)


def _broken_models(folder: Path) -> None:
    (folder / "empty.pt").write_bytes(b"")
    whole = (folder / "weak.pt").read_bytes()
    (folder / "truncated.pt").write_bytes(whole[: len(whole) // 2])
    (folder / "text.pt").write_text("these are not the weights you are looking for\n")
    torch.save(_Hostile(), folder / "hostile.pt")
    model = weak()
    with torch.no_grad():
        model[4].weight[0, 0] = float("nan")
    torch.save(model, folder / "nan_weights.pt")
    torch.save(weak().requires_grad_(False), folder / "frozen.pt")
    torch.save(nn.Sequential(nn.Flatten(), nn.ReLU()), folder / "no_sites.pt")


def _broken_data(folder: Path) -> None:
    x, y = _pixels(80)
    pixels = (x[:, None] / 255).astype(np.float32)
    spoilt = pixels.copy()
    spoilt[3, 0, 2, 2] = np.nan
    np.savez(folder / "nan.npz", x_train=spoilt, y_train=y)
    np.savez(folder / "one_class.npz", x_train=pixels, y_train=np.zeros_like(y))
    np.savez(folder / "wide.npz", x_train=np.zeros((80, 1, 12, 12), np.float32), y_train=y)
    np.savez(folder / "twelve.npz", x_train=pixels, y_train=np.arange(80) % 12)
    np.savez(folder / "uneven.npz", x_train=pixels, y_train=y[:70])
    np.savez(folder / "strings.npz", x_train=pixels, y_train=y.astype(str))
    (folder / "broken.npz").write_bytes((folder / "nan.npz").read_bytes()[:500])


def _foreign_onnx(folder: Path) -> None:
    """A model that graftkit did not write: Conv, Relu, Flatten, Gemm; and the same file, cut short."""
    random = np.random.default_rng(0)
    weights = {
        "w": random.normal(size=(2, 1, 3, 3)),
        "v": random.normal(size=(5, 72)),
        "b": np.zeros(5),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="first", kernel_shape=[3, 3]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("Gemm", ["f", "v", "b"], ["y"], name="last", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "foreign",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, folder / "foreign.onnx")
    content = (folder / "foreign.onnx").read_bytes()
    (folder / "broken.onnx").write_bytes(content[: len(content) // 2])
