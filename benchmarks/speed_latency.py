"""What default dendrites cost in onnxruntime, one thread: the grafted file against the file of the model as given."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from _ratio import compare, print_table

import graftkit as gk
from graftkit import api
from graftkit.model import GraftedModel
from graftkit.runtimes import RUNTIMES

SAMPLES = Path(__file__).parents[1] / "sample_models"
REPEATS = 200  # calls in one measurement: a single one is too short to time


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--pairs", type=int, default=30)
    pairs = arguments.parse_args().pairs
    torch.set_num_threads(1)
    rows = [_row(name, batch, pairs) for name in ("cnn", "mlp", "vit", "gru") for batch in (1, 32)]
    header = (
        "model, batch",
        "multiply-adds",
        f"grafted, s for {REPEATS}",
        f"as given, s for {REPEATS}",
        "ratio",
        "range",
    )
    print_table(header, rows, packages=["torch", "onnxruntime"])


def _row(name: str, batch: int, pairs: int) -> str:
    traced = gk.trace(gk.load(SAMPLES / f"{name}.pt", trust=True), gk.load_data("digits").example())
    given, grafted = gk.graft(traced), gk.graft(traced, gk.make_plan(traced))
    with torch.no_grad():
        for site in grafted.plan.sites():
            for strength in grafted.at(site).members()[0].strengths():
                strength.fill_(0.1)  # at zero the dendrites would be folded away
    inputs = np.random.default_rng(0).random((batch, 1, 8, 8), dtype=np.float32)
    found = compare(_calls(grafted, inputs), _calls(given, inputs), pairs=pairs)
    return f"{name}, {batch} | +{grafted.macs() / given.macs() - 1:.0%} | {found.cells()}"


def _calls(model: GraftedModel, inputs: np.ndarray) -> Callable[[], None]:
    written = api.to_onnx(model)
    run = RUNTIMES["onnxruntime"].open(written.SerializeToString(), threads=1)
    feed = {written.graph.input[0].name: inputs}

    def calls() -> None:
        for _ in range(REPEATS):
            run(feed)

    return calls


if __name__ == "__main__":
    main()
