"""Grafted networks against their own arithmetic in onnxruntime: latency over the plain network, by layout.

Needs what `make zoo` installs.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from _nets import speech_cnn
from _ratio import print_table
from networks import Encoder, ResNet18
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))

import graftkit as gk
from graftkit.core.errors import PlanError
from graftkit.folding.layouts import arrange
from graftkit.runtimes import RUNTIMES
from graftkit.shipping import Target, build
from graftkit.shipping.layouts import layouts_for
from graftkit.timing import in_turns, ratio
from tests.zoo.torchvision_ops import prepare

KINDS = ("context:mode=gate", "context:mode=add", "pointwise", "lowrank", "full")


def networks() -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    """From a name to a network and the shape of a row."""
    import timm  # not before operators were declared that torchvision's binaries may lack

    return {
        "ResNet-18, 3x32x32": (ResNet18(), (3, 32, 32)),
        "MobileNetV3-small, 3x224x224": (timm.create_model("mobilenetv3_small_100", num_classes=10), (3, 224, 224)),
        "ViT-tiny, 3x224x224": (timm.create_model("vit_tiny_patch16_224", num_classes=10), (3, 224, 224)),
        "spoken words, 8 and 12 channels": (speech_cnn((8, 12)), (16, 49)),
        "encoder, 6 layers, 64x256": (Encoder(), (64, 256)),
    }


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=40)
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--only", default="", help="networks whose name has this in it")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    prepare()
    logging.disable(logging.WARNING)
    rows = []
    for name, (network, shape) in networks().items():
        if given.only in name:
            for kind in KINDS:
                try:
                    rows.append(_row(name, network, shape, kind, given.rounds, given.threads))
                except PlanError:  # a kind that fits no site
                    rows.append(" | ".join([name, kind, *["-"] * 6, "fits no site"]))
    header = ("network", "dendrites", "plain, µs", "multiply-adds", "branches", "by rule", "auto", "auto's", "auto over"
              " its arithmetic")  # fmt: skip
    print_table(header, rows, packages=["torch", "onnxruntime"])
    print(f"\n{given.threads} thread(s), one row; ratios to the plain network, medians of {given.rounds} turns.")


def _row(name: str, network: nn.Module, shape: tuple[int, ...], kind: str, rounds: int, threads: int) -> str:
    torch.manual_seed(0)
    traced = gk.trace(network.eval(), torch.randn(2, *shape), dynamic="batch")
    given, model = gk.graft(traced), gk.graft(traced, gk.make_plan(traced, dendrites=kind))
    with torch.no_grad():
        for parameter in model.dendrites.parameters():
            parameter.normal_(std=0.05)
    written = build(model.eval())
    row = {written.proto.graph.input[0].name: np.random.default_rng(0).standard_normal((1, *shape), dtype=np.float32)}
    files = {"plain": build(given).whole()}
    chosen = {}
    for layout in ("branches", "portable", "auto"):
        chosen[layout] = layouts_for(layout, written, row, Target(threads=threads))
        files[layout] = written.whole()
        arrange(files[layout], chosen[layout])
    sessions = [RUNTIMES["onnxruntime"].open(f.SerializeToString(), threads=threads) for f in files.values()]
    seconds = dict(zip(files, in_turns(sessions, [row] * len(sessions), rounds=rounds, slice=1e-2), strict=True))
    found = {layout: ratio(seconds[layout], seconds["plain"]) for layout in chosen}
    arithmetic = model.macs() / given.macs()
    told = ", ".join(sorted(set(chosen["auto"].values()))) or "branches"
    cells = [f"{found[layout].median:.3f}" for layout in chosen]
    plain = f"{statistics.median(seconds['plain']) * 1e6:.0f}"
    over = f"**{found['auto'].median / arithmetic:.3f}**"
    return " | ".join([name, kind, plain, f"x {arithmetic:.3f}", *cells, f"{told} at {len(chosen['auto'])}", over])


if __name__ == "__main__":
    main()
