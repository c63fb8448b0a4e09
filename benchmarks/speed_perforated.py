"""A full growth cycle in a loop of one's own: graftkit's Grower beside PerforatedAI 3.2.9, time and peak memory.

The same plain convolutional net, data, batches and optimizer: epochs without dendrites, then one `full` dendrite with a
sigmoid at every convolution, the same epochs again, scores told after each. Each side runs in a process of its own, in
turn. PerforatedAI writes its best state to disk, as it always does; its pictures and tests of itself are off.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

Parts = dict[str, float]  # seconds of processor time, and megabytes
NETS: dict[str, tuple[tuple[int, ...], int, int, int]] = {  # channels, height, rows, epochs of each half
    "8 convolutions, 64 to 256 channels, 3x32x32": ((64, 64, 128, 128, 128, 256, 256, 256), 32, 64, 2),
    "4 convolutions, 8 to 16 channels, 3x16x16": ((8, 8, 16, 16), 16, 1024, 8),
}
BATCH = 32


def net(channels: tuple[int, ...]) -> nn.Sequential:
    """Convolutions, each with a ReLU, a pool behind every second one, the mean over positions, a Linear."""
    parts: list[nn.Module] = []
    for index, (inputs, outputs) in enumerate(zip((3, *channels), channels, strict=False)):
        parts += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
        parts += [nn.MaxPool2d(2)] if index % 2 else []
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], 10))


def peak() -> float:
    """Megabytes that this process held at most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def cycle(model: nn.Module, optimizer: torch.optim.Optimizer, size: int, rows: int, epochs: int) -> float:
    """Train for so many epochs; a score as a validation would give it, rising."""
    inputs = torch.randn(rows, 3, size, size, generator=torch.Generator().manual_seed(1))
    targets = torch.randint(0, 10, (rows,), generator=torch.Generator().manual_seed(2))
    model.train()
    for _ in range(epochs):
        for start in range(0, rows, BATCH):
            optimizer.zero_grad()
            cross_entropy(model(inputs[start : start + BATCH]), targets[start : start + BATCH]).backward()
            optimizer.step()
    return 0.0


def ours(name: str) -> Parts:
    """With a Grower."""
    import graftkit as gk

    channels, size, rows, epochs = NETS[name]
    model, told = net(channels), _Clock()
    example = torch.randn(2, 3, size, size)
    before = peak()
    told.begin()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    schedule = f"rounds:epochs={epochs},dendrites=1"
    grower = gk.Grower(model, example, optimizer, dendrites="full:activation=sigmoid", schedule=schedule)
    told.end("set up")
    for epoch in range(2 * epochs):
        cycle(grower.model, optimizer, size, rows, 1)
        told.end("epochs before" if epoch < epochs else "epochs after")
        grew = grower.step(0.1 + epoch / 100).grew
        told.end("scores and growth")
        assert grew == (epoch + 1 == epochs)
    return told.parts | {"memory": peak() - before, "parameters": float(grower.model.grafted.parameter_count())}


def theirs(name: str) -> Parts:
    """With PerforatedAI's tracker."""
    from perforatedai import globals_perforatedai as settings
    from perforatedai import utils_perforatedai as tools

    channels, size, rows, epochs = NETS[name]
    model, told = net(channels), _Clock()
    before = peak()
    told.begin()
    pc = settings.pc
    pc.set_device(torch.device("cpu"))
    pc.set_use_cuda(False)
    pc.set_silent(True)
    pc.set_configuration_confirmed(True)
    pc.set_testing_dendrite_capacity(False)
    pc.set_test_saves(False)
    pc.set_find_best_lr(False)
    pc.set_output_dimensions([-1, 0, -1, -1])
    pc.set_module_names_to_perforate(["Conv2d"])
    pc.set_module_names_to_track(["Linear"])
    pc.set_switch_mode(pc.DOING_FIXED_SWITCH)
    pc.set_fixed_switch_num(epochs)
    pc.set_max_dendrites(1)
    model = tools.perforate_model(model, save_name="PAI", maximizing_score=True, making_graphs=False)
    tracker = settings.pai_tracker
    tracker.set_optimizer_instance(optimizer := torch.optim.AdamW(_used(model), lr=1e-3))
    told.end("set up")
    for epoch in range(2 * epochs):
        cycle(model, optimizer, size, rows, 1)
        told.end("epochs before" if epoch < epochs else "epochs after")
        if epoch + 1 < 2 * epochs:
            model, grew, _ = tracker.add_validation_score(0.1 + epoch / 100, model)
            if bool(grew) != (epoch + 1 == epochs):
                raise RuntimeError(f"it did not keep to the switch after epoch {epochs}, but {grew=} in {epoch}")
            if grew:
                tracker.set_optimizer_instance(optimizer := torch.optim.AdamW(_used(model), lr=1e-3))
        told.end("scores and growth")
    return told.parts | {"memory": peak() - before, "parameters": float(sum(p.numel() for p in _used(model)))}


def _used(model: nn.Module) -> list[nn.Parameter]:
    """Without the copies from which its dendrites are made."""
    return [p for name, p in model.named_parameters() if "parent_module" not in name]


class _Clock:
    """Seconds of processor time by part."""

    def __init__(self) -> None:
        self.parts: Parts = {}
        self.last = 0.0

    def begin(self) -> None:
        self.last = time.process_time()

    def end(self, part: str) -> None:
        now = time.process_time()
        self.parts[part] = self.parts.get(part, 0.0) + now - self.last
        self.last = now


SIDES: Mapping[str, Callable[[str], Parts]] = {"ours": ours, "theirs": theirs}
PARTS = ("set up", "epochs before", "scores and growth", "epochs after")


def measure(interpreter: Path, side: str, name: str) -> Parts:
    """One cycle in a process of its own, in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="graftkit-") as folder:
        line = [interpreter.absolute(), "-W", "ignore", Path(__file__).resolve(), "--side", side, "--net", name]
        alone = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(line, cwd=folder, env=alone, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{side}: {done.stderr[-2000:]}")
    found: Parts = json.loads(done.stdout.splitlines()[-1])
    return {**found, "total": sum(found[part] for part in PARTS)}


def table(name: str, found: Mapping[str, list[Parts]]) -> str:
    """A row for each part: medians, and the median and range of the ratios pair by pair."""
    rows = [f"**{name}** | | | | "]
    for part in (*PARTS, "total", "memory"):
        pairs = [(a[part], b[part]) for a, b in zip(found["ours"], found["theirs"], strict=True)]
        ratios = [a / max(b, 1e-9) for a, b in pairs]
        digits, unit = (0, "MB above what the net and its data took") if part == "memory" else (2, "s")
        cells = [f"{statistics.median(side):.{digits}f}" for side in zip(*pairs, strict=True)]
        rows.append(
            f"{part}, {unit} | {cells[0]} | {cells[1]} | **{statistics.median(ratios):.2f}**"
            f" | {min(ratios):.2f} – {max(ratios):.2f}"
        )
    return "\n".join(f"| {row} |" for row in rows)


def main() -> None:
    """Run one side, or all of them in turn."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--perforated", type=Path, help="a Python with perforatedai 3.2.9")
    made.add_argument("--pairs", type=int, default=3)
    made.add_argument("--side", choices=[*SIDES], help=argparse.SUPPRESS)
    made.add_argument("--net", choices=[*NETS], help=argparse.SUPPRESS)
    options = made.parse_args()
    if options.side:
        torch.set_num_threads(1)
        torch.manual_seed(0)
        stdout, sys.stdout = sys.stdout, sys.stderr
        found = SIDES[options.side](options.net)
        print(json.dumps(found), file=stdout)
        return
    if options.perforated is None:
        made.error("--perforated is needed")
    print("| | graftkit | PerforatedAI | ratio | range |\n| --- | --- | --- | --- | --- |")
    for name in NETS:
        runs: dict[str, list[Any]] = {side: [] for side in SIDES}
        for pair in range(options.pairs):
            for side in [*SIDES][:: 1 if pair % 2 else -1]:
                runs[side].append(measure(Path(sys.executable) if side == "ours" else options.perforated, side, name))
        sizes = {run["parameters"] for side in runs.values() for run in side}
        if len(sizes) != 1:
            raise RuntimeError(f"the networks are not the same: {sizes} parameters")
        print(table(name, runs), flush=True)


if __name__ == "__main__":
    main()
