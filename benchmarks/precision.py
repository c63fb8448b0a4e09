"""What smaller numbers cost and bring: metric, size and time of the sample models and of a ResNet-18.

The sample models are grafted with the defaults and trained on the digits for a few epochs. The ResNet-18 for 32x32
pixels learns to tell stripes of four directions in noise for a few steps, so that its activations
are those of a trained network. Times are onnxruntime's for one row, run in turn with the file in fp32.
"""

from __future__ import annotations

import argparse
import logging
import platform
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime
import torch
from _ratio import Ratio, calls_within, compare, print_table
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

import graftkit as gk
from graftkit import shipping, training
from graftkit.contracts import Data
from graftkit.core.errors import GraftkitError
from graftkit.model import GraftedModel
from graftkit.precisions import PRECISIONS

MODELS = Path(__file__).parents[1] / "sample_models"
SAMPLES = ("cnn", "mlp", "vit", "gru")
OPSET = 21  # what int4 needs


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--only", nargs="*", default=[*SAMPLES, "resnet18"])
    arguments.add_argument("--epochs", type=int, default=6, help="of a sample model, with its dendrites")
    arguments.add_argument("--steps", type=int, default=30, help="of the ResNet-18, 32 images each")
    arguments.add_argument("--width", type=int, default=64, help="of the ResNet-18's first stage")
    arguments.add_argument("--pairs", type=int, default=40)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    rows = [row for name in given.only for row in _rows(name, given)]
    header = ("model", "numbers", "validation %", "largest difference", "bytes", "of fp32", "1 thread", "2 threads")
    print(f"CPU: {_cpu()}\n")
    print_table(header, rows, packages=["torch", "onnx", "onnxruntime"])


def _rows(name: str, given: argparse.Namespace) -> list[str]:
    model, data = model_and_data(name, epochs=given.epochs, steps=given.steps, width=given.width)
    with TemporaryDirectory() as folder:
        full = shipping.ship(model, Path(folder) / "fp32.onnx", data, opset=OPSET, metric=training.accuracy)
        size = full.path.stat().st_size
        assert full.metric is not None
        rows = [f"{name} | fp32 | {100 * full.metric:.2f} | | {size:,} | 1.00 | 1.00 | 1.00"]
        for precision in PRECISIONS:
            rows.append(f"{name} | {precision} | {_cells(full, data, precision, given.pairs)}")
            print(rows[-1], file=sys.stderr, flush=True)
    return rows


def model_and_data(name: str, *, epochs: int = 6, steps: int = 30, width: int = 64) -> tuple[GraftedModel, Data]:
    """A sample model, or `resnet18`: with dendrites, and trained on for so many epochs or steps."""
    return _resnet18(width, steps) if name == "resnet18" else _sample(name, epochs)


def _cells(full: shipping.Shipped, data: Data, precision: str, pairs: int) -> str:
    path = full.path.with_name(f"{precision}.onnx")
    try:
        made = shipping.lower(full, path, data, training.accuracy, precision=precision)
    except GraftkitError as error:
        return f"{str(error).split(';')[0]} | | | | |"
    image = next(iter(training.batches(data.validation, 1)))[0].numpy()
    times = [f"{ratio(path, full.path, image, threads, pairs).median:.2f}" for threads in (1, 2)]
    share = made.bytes_after / made.bytes_before
    left = f" ({made.notes[0]})" if made.notes else ""
    return f"{100 * made.after:.2f}{left} | {made.difference:.1e} | {made.bytes_after:,} | {share:.2f} | " + " | ".join(
        times
    )


def ratio(ours: Path, theirs: Path, image: np.ndarray, threads: int, pairs: int) -> Ratio:
    """How much longer ours takes for an image, in turn with theirs."""
    first, second = (_session(path, image, threads) for path in (ours, theirs))
    return compare(first, second, pairs=pairs, runs=calls_within(second, 4e-3), clock=time.perf_counter)


def _session(path: Path, image: np.ndarray, threads: int) -> Callable[[], object]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: image}
    session.run(None, feed)
    return lambda: session.run(None, feed)


def _sample(name: str, epochs: int) -> tuple[GraftedModel, Data]:
    """A sample model with the default dendrites, trained on."""
    torch.manual_seed(0)
    data = gk.load_data("digits")
    traced = gk.trace(gk.load(MODELS / f"{name}.pt", trust=True), data.example())
    model = gk.graft(traced, gk.make_plan(traced))
    for epoch in range(epochs):
        _learn(model, data, epoch, batch=64, rate=1e-3)
    return model.eval(), data


def _resnet18(width: int, steps: int) -> tuple[GraftedModel, Data]:
    torch.manual_seed(0)
    data = Data(_stripes(32 * steps, 1), _stripes(400, 2), None, "classes", 4, "stripes")
    traced = gk.trace(ResNet18(width), data.example())
    model = gk.graft(traced, gk.make_plan(traced))
    _learn(model, data, 0, batch=32, rate=1e-3)
    return model.eval(), data


def _learn(model: GraftedModel, data: Data, seed: int, *, batch: int, rate: float) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    model.train()
    for images, labels in training.batches(data.train, batch, seed=seed):
        optimizer.zero_grad()
        cross_entropy(model(images), labels).backward()
        optimizer.step()


def _stripes(count: int, seed: int) -> TensorDataset:
    """[count, 3, 32, 32]: waves of one of four directions, of any phase and colour, in noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (count,), generator=generator)
    phase, colour = torch.rand(count, 1, 1, generator=generator) * 6.3, torch.rand(count, 3, 1, 1, generator=generator)
    across = torch.arange(32.0)
    angle = labels.reshape(-1, 1, 1) * torch.pi / 4
    waves = torch.sin(0.6 * (angle.cos() * across + angle.sin() * across.reshape(-1, 1)) + phase)
    noise = torch.randn(count, 3, 32, 32, generator=generator)
    return TensorDataset(colour * waves.unsqueeze(1) + 0.7 * noise, labels)


class Block(nn.Module):
    """Two convolutions and a way around them."""

    def __init__(self, before: int, width: int, stride: int):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width))
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width))
        self.around = nn.Identity()
        if stride > 1 or before != width:
            self.around = nn.Sequential(nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.second(torch.relu(self.first(x))) + self.around(x))


class ResNet18(nn.Module):
    """[N, 3, 32, 32] to [N, 4], with the stem that is usual for such small images."""

    def __init__(self, width: int):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        before, blocks = width, []
        for stage in range(4):
            now = width * 2**stage
            blocks += [Block(before, now, 1 if stage == 0 else 2), Block(now, now, 1)]
            before = now
        self.blocks, self.head = nn.Sequential(*blocks), nn.Linear(before, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


def _cpu() -> str:
    """The CPU's name, and which of the instructions that matter here it has."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    name = next((line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line), "")
    flags = next((line.split() for line in text.splitlines() if line.startswith("flags")), [])
    there = ", ".join(
        f"{flag} {'yes' if flag in flags else 'no'}" for flag in ("avx2", "avx512f", "avx512_vnni", "avx_vnni")
    )
    return f"{name or platform.processor()} ({there})"


if __name__ == "__main__":
    main()
