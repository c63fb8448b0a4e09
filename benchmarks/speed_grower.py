"""What a Grower costs in a loop of one's own: a training step beside the same graph without it, and a checkpoint."""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import safetensors.torch
import torch
from _nets import speech_cnn
from _ratio import compare, print_table
from networks import ResNet18
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import graftkit as gk
from graftkit.training import Checkpoints

MEGABYTES = 100
STEPS: dict[
    str, tuple[Callable[[], nn.Module], tuple[int, ...], int, int, int]
] = {  # rows a batch, pairs, steps in each
    "ResNet-18, 3x32x32, 32 rows": (lambda: ResNet18(dendrites=0), (3, 32, 32), 32, 31, 1),
    "speech, two convolutions, 64 rows": (lambda: speech_cnn((8, 8)), (16, 49), 64, 41, 40),
}


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--share", type=float, default=1.0, help="of the default number of pairs")
    share = arguments.parse_args().share
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    rows = [_step_row(name, *what, share) for name, what in STEPS.items()]
    rows.append(_checkpoint_row(max(5, round(21 * share))))
    print_table(
        ("what", "graftkit, ms", "beside it, ms", "ratio", "range", "aim"), rows, packages=["torch", "safetensors"]
    )


def _step_row(
    name: str, build: Callable[[], nn.Module], shape: tuple[int, ...], batch: int, pairs: int, runs: int, share: float
) -> str:
    """A step through the Grower's model, after a growth, beside one through the graph that it holds."""
    torch.manual_seed(0)
    model = build().train()
    inputs, targets = torch.randn(batch, *shape), torch.randint(0, 10, (batch,))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    grower = gk.Grower(model, inputs[:2], optimizer, schedule="rounds:epochs=1")
    assert grower.step(0.5).grew
    grower.model.train()
    graph = grower.model.grafted.graphs[0]

    def step(forward: Callable[[Tensor], Tensor]) -> Callable[[], None]:
        def run() -> None:
            optimizer.zero_grad()
            cross_entropy(forward(inputs), targets).backward()
            optimizer.step()

        return run

    ours, theirs = step(grower.model), step(graph)
    for one in (ours, theirs) * 3:
        one()
    found = compare(ours, theirs, pairs=max(5, round(pairs * share)), runs=runs)
    return f"step: {name} | {found.cells(1e-3)} | ≤ 1.01"


def _checkpoint_row(pairs: int) -> str:
    """A checkpoint of as many numbers as a model of 100 MB has, beside `safetensors.torch.save_file`."""
    state = {f"layer{index}": torch.randn(MEGABYTES * 250_000 // 25) for index in range(25)}
    with tempfile.TemporaryDirectory() as folder:
        kept = Checkpoints(Path(folder), "net")
        plain = Path(folder) / "plain.safetensors"

        def ours() -> None:
            kept.write(state)

        def theirs() -> None:
            safetensors.torch.save_file(state, plain)

        for one in (ours, theirs) * 3:
            one()
        found = compare(ours, theirs, pairs=pairs, clock=time.perf_counter)
    return f"checkpoint: {MEGABYTES} MB | {found.cells(1e-3, 0)} | ≤ 1.3"


if __name__ == "__main__":
    main()
