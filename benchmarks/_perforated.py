"""The arm of PerforatedAI 3.2.9 from PyPI: dendrites by gradient, as its open part makes them, in its own interpreter.

Run by that interpreter it trains the job in the folder that is named: `job.json` and `rows.npz`. It needs torch alone.

Half of the epochs train the plain net. Then its tracker loads the best validated state, as it always does (here of
their last quarter, as in all other arms: it is told of no score before), and gives every Conv and Linear one dendrite,
a copy of the layer: layer(x) + to_top * sigmoid(copy(x)), to_top zero at first. The other epochs train everything, with
a fresh AdamW and course of the learning rate, as in all other arms; what is scored is the wrapped model itself, for its
clean-up drops single dendrites. A batch norm goes with its convolution into one block, as its documentation asks. Its
search for learning rates, its capacity test and its pictures are off.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import pdb
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import _nets
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import BatchSampler, RandomSampler

BATCH, WARM_UP, WEIGHT_DECAY, SETTLED = 64, 0.05, 1e-2, 0.25
PARTS = ("train", "validation", "test")
Rows = tuple[Tensor, Tensor]


def perforated(interpreter: Path, suite: Any, data: Any, widths: tuple[int, ...], seed: int) -> Any:
    """The arm in a process of its own, with a suite of `frontier.py`: size, and scores of the second half's epochs."""
    from _arms import Arm

    with tempfile.TemporaryDirectory(prefix="graftkit-") as folder:
        arrays = {}
        for part in PARTS:
            arrays[f"x_{part}"], arrays[f"y_{part}"] = (tensor.numpy() for tensor in getattr(data, part).tensors)
        np.savez(Path(folder) / "rows.npz", **arrays)  # type: ignore[arg-type]
        job = {"net": suite.build.__name__, "widths": widths, "moves": suite.moves.__name__, "epochs": suite.epochs}
        job |= {"learning_rate": suite.learning_rate, "seed": seed}
        (Path(folder) / "job.json").write_text(json.dumps(job))
        done = subprocess.run([interpreter, __file__, folder], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"PerforatedAI: {done.stderr[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return Arm(found["parameters"], tuple(found["validation"]), tuple(found["test"]))


# ── in the other interpreter ─────────────────────────────────────────────────────────────────────


def train(job: dict[str, Any], rows: dict[str, Rows]) -> dict[str, Any]:
    """Both halves; the size as deployed, and validation and test accuracy after each epoch of the second."""
    from perforatedai import globals_perforatedai as settings
    from perforatedai import utils_perforatedai as tools

    torch.manual_seed(job["seed"])
    net = getattr(_nets, job["net"])(tuple(job["widths"]))
    base, half = sum(p.numel() for p in net.parameters()), job["epochs"] // 2
    _configure(settings.pc, half)
    model = tools.perforate_model(_blocks(net, settings.PAISequential), save_name="PAI", maximizing_score=True,
                                  making_graphs=False)  # fmt: skip
    tracker, moves = settings.pai_tracker, getattr(_nets, job["moves"])
    size = len(rows["train"][1])
    scores: list[tuple[float, float]] = []
    for epoch in range(job["epochs"]):
        if epoch in (0, half):  # every half has the same rows in the same order, as in all other arms
            torch.manual_seed(job["seed"])
            order = RandomSampler(range(size), generator=torch.Generator().manual_seed(job["seed"]))
            batches = BatchSampler(order, BATCH, drop_last=size > BATCH and size % BATCH == 1)
            optimizer = torch.optim.AdamW(_deployed(model), lr=job["learning_rate"], weight_decay=WEIGHT_DECAY)
            tracker.set_optimizer_instance(optimizer)
            steps = (half if epoch == 0 else job["epochs"] - half) * len(batches)
            course = torch.optim.lr_scheduler.LambdaLR(optimizer, functools.partial(_rate, steps=steps))
        model.train()
        for chosen in batches:
            optimizer.zero_grad()
            functional.cross_entropy(model(moves(rows["train"][0][chosen])), rows["train"][1][chosen]).backward()
            optimizer.step()
            course.step()
        scores.append((_accuracy(model, rows["validation"]), _accuracy(model, rows["test"])))
        if epoch + 1 <= half:
            told = scores[-1][0] if epoch + 1 > (1 - SETTLED) * half else 0.0
            model, restructured, complete = tracker.add_validation_score(told, model)
            if complete or bool(restructured) != (epoch + 1 == half):
                raise RuntimeError(f"it did not keep to the switch after epoch {half}, but {restructured=} in {epoch}")
    neurons = tools.get_pai_modules(model, 0)
    _check(model, neurons, base, rows["validation"][0][:256])
    validation, test = zip(*scores[half:], strict=True)
    return {"parameters": sum(p.numel() for p in _deployed(model)), "validation": validation, "test": test}


def _configure(settings: Any, switch_at: int) -> None:
    settings.set_device(torch.device("cpu"))
    settings.set_use_cuda(False)
    settings.set_silent(True)
    settings.set_configuration_confirmed(True)  # it would ask in the terminal
    settings.set_testing_dendrite_capacity(False)
    settings.set_test_saves(False)
    settings.set_find_best_lr(False)
    settings.set_output_dimensions([-1, 0, -1, -1])
    settings.set_module_names_to_perforate(["PAISequential", "Conv1d", "Conv2d", "Linear"])
    settings.set_switch_mode(settings.DOING_FIXED_SWITCH)
    settings.set_fixed_switch_num(switch_at)
    settings.set_max_dendrites(1)


def _blocks(net: nn.Sequential, block: Any) -> nn.Sequential:
    """The same net, each convolution and the batch norm behind it in one block."""
    parts: list[nn.Module] = []
    for part in net:
        joined = isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d)
        parts.append(block([parts.pop(), part]) if joined else part)
    return nn.Sequential(*parts)


def _deployed(model: nn.Module) -> list[nn.Parameter]:
    """All that is needed to compute outputs, without the unused copies from which dendrites are made."""
    return [p for name, p in model.named_parameters() if "parent_module" not in name]


def _check(model: nn.Module, neurons: list[Any], base: int, inputs: Tensor) -> None:
    """One dendrite at each layer, the parameters that this must add, and outputs that depend on each."""
    expected = base
    for neuron in neurons:
        expected += sum(p.numel() for p in neuron.main_module.parameters()) + neuron.dendrites_to_top[0].numel()
    found = sum(p.numel() for p in _deployed(model))
    if found != expected:
        raise RuntimeError(f"{found} parameters, but {expected} are due")
    with torch.no_grad():
        whole = model.eval()(inputs)
        for neuron in neurons:
            kept = neuron.dendrites_to_top[0].detach().clone()
            neuron.dendrites_to_top[0].zero_()
            if torch.equal(model(inputs), whole):
                raise RuntimeError(f"the dendrites of {neuron.name} do nothing")
            neuron.dendrites_to_top[0].copy_(kept)


def _rate(step: int, steps: int) -> float:
    """As in `graftkit.training.Recipe.rate`."""
    rise = max(1, round(steps * WARM_UP))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rise) / max(1, steps - rise))))


def _accuracy(model: nn.Module, rows: Rows) -> float:
    model.eval()
    with torch.no_grad():
        parts = zip(*(part.split(512) for part in rows), strict=True)
        return sum(int((model(x).argmax(1) == y).sum()) for x, y in parts) / len(rows[1])


@contextlib.contextmanager
def _contained() -> Iterator[None]:
    """What it prints goes to stderr, what it writes to a folder that is removed, and its debugger stops are errors."""

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("it stopped in its debugger")

    with tempfile.TemporaryDirectory(prefix="graftkit-") as scratch, contextlib.redirect_stdout(sys.stderr):
        before = Path.cwd()
        os.chdir(scratch)
        pdb.set_trace = refuse
        try:
            yield
        finally:
            os.chdir(before)


def main() -> None:
    """Train the job of the folder that is named; one line of JSON."""
    folder = Path(sys.argv[1])
    job = json.loads((folder / "job.json").read_text())
    arrays = np.load(folder / "rows.npz")
    rows = {part: (torch.from_numpy(arrays[f"x_{part}"]), torch.from_numpy(arrays[f"y_{part}"])) for part in PARTS}
    torch.set_num_threads(1)
    with _contained():
        found = train(job, rows)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
