"""Layouts of grafted sites in onnxruntime: each by itself over many shapes, and what `--layout auto` chooses."""

from __future__ import annotations

import argparse
import logging
import statistics
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from _ratio import print_table
from torch import nn

import graftkit as gk
from graftkit import folding
from graftkit.folding.layouts import LAYOUTS, arrange, grafted_sites
from graftkit.runtimes import RUNTIMES
from graftkit.shipping import CHOICES, Target, build
from graftkit.shipping.layouts import layouts_for
from graftkit.timing import in_turns, ratio


@dataclass(frozen=True)
class Shape:
    """A Conv or Linear site: `size` are the positions along each axis, none for a Linear."""

    channels: int
    kernel: int
    size: tuple[int, ...]
    kind: str = "full"
    stride: int = 1
    groups: int = 1

    def layer(self) -> nn.Module:
        if not self.size:
            return nn.Linear(self.channels, self.channels)
        convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[len(self.size) - 1]
        padding = self.kernel // 2
        return convolution(
            self.channels, self.channels, self.kernel, padding=padding, stride=self.stride, groups=self.groups
        )

    def __str__(self) -> str:
        where = "x".join(map(str, self.size))
        more = f", stride {self.stride}" * (self.stride > 1) + f", {self.groups} groups" * (self.groups > 1)
        form = f"{len(self.size)}-D, kernel {self.kernel}{more}, {where}" if self.size else "Linear"
        return f"{self.channels} channels, {form}, {self.kind}"


def shapes() -> Iterator[Shape]:
    """What is measured."""
    for channels, size in ((4, 32), (8, 32), (12, 32), (16, 32), (24, 16), (32, 16), (64, 16), (128, 8), (256, 8)):
        yield Shape(channels, 3, (size, size))
        yield Shape(channels, 1, (size, size))
    yield Shape(512, 1, (4, 4))
    yield Shape(512, 3, (4, 4))
    for channels in (4, 8, 16, 32):
        yield Shape(channels, 5, (16, 16))
        yield Shape(channels, 7, (16, 16))
    for channels in (4, 8, 16, 64):
        yield Shape(channels, 3, (49,))
        yield Shape(channels, 5, (128,))
    for channels in (4, 8, 16):
        yield Shape(channels, 3, (8, 8, 8))
    yield Shape(8, 3, (32, 32), stride=2)
    yield Shape(8, 3, (32, 32), groups=2)
    for channels in (8, 32, 128, 512):
        yield Shape(channels, 1, ())
    for kind in ("pointwise", "lowrank", "context:mode=gate", "context:mode=add"):
        for channels in (8, 16, 32, 64):
            yield Shape(channels, 3, (32, 32), kind)


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=60)
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--only", default="", help="shapes whose name has this in it")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    rows, beyond = [], []
    for shape in (shape for shape in shapes() if given.only in str(shape)):
        row, worse = _row(shape, given.rounds, given.threads)
        rows.append(row)
        beyond.append(worse)
    header = ("site", "plain, µs", *LAYOUTS, "by rule", "auto", "auto over the best")
    print_table(header, rows, packages=["torch", "onnxruntime"])
    mean, most, within = statistics.mean(beyond) - 1, max(beyond) - 1, sum(one <= 1.02 for one in beyond)
    print(
        f"\n{given.threads} thread(s): auto takes {mean:.1%} more time than the best layout on average, {most:.1%} more"
        f" at most, and is within 2% of it in {within} of {len(rows)} shapes."
    )


def _row(shape: Shape, rounds: int, threads: int) -> tuple[str, float]:
    torch.manual_seed(0)
    traced = gk.trace(nn.Sequential(shape.layer(), nn.ReLU()).eval(), torch.randn(2, shape.channels, *shape.size))
    plain = build(gk.graft(traced))
    model = gk.graft(traced, gk.make_plan(traced, dendrites=shape.kind, sites="0"))
    with torch.no_grad():
        for parameter in model.dendrites.parameters():
            parameter.normal_(std=0.3)
    written = build(model.eval())
    row = {plain.proto.graph.input[0].name: np.random.default_rng(0).standard_normal(
        (1, shape.channels, *shape.size), dtype=np.float32)}  # fmt: skip
    target = Target(threads=threads)
    chosen = {choice: layouts_for(choice, written, row, target).get("0", folding.BRANCHES) for choice in CHOICES[:2]}
    files = {"plain": plain.whole(), **{name: written.whole() for name in LAYOUTS}}
    there = [name for name in LAYOUTS if arrange(files[name], {"0": name}) or name == folding.BRANCHES]
    assert [site.site for site in grafted_sites(written.proto.graph)] == ["0"]
    sessions = {
        name: RUNTIMES["onnxruntime"].open(files[name].SerializeToString(), threads=threads)
        for name in ("plain", *there)
    }
    turns = in_turns(list(sessions.values()), [row] * len(sessions), rounds=rounds)
    seconds = dict(zip(sessions, turns, strict=True))
    medians = {name: ratio(seconds[name], seconds["plain"]).median for name in there}
    best = min(medians, key=medians.__getitem__)
    worse = ratio(seconds[chosen["auto"]], seconds[best]).median
    cells = [f"**{medians[n]:.2f}**" if n == best else f"{medians[n]:.2f}" if n in medians else "-" for n in LAYOUTS]
    return " | ".join([str(shape), f"{statistics.median(seconds['plain']) * 1e6:.1f}", *cells, chosen["portable"],
                       chosen["auto"], f"{worse:.3f}"]), worse  # fmt: skip


if __name__ == "__main__":
    main()
