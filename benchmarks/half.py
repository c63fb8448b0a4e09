"""Half the multiply-adds: a ResNet-18 on 32x32 images and a transformer of four layers on spoken digits, compressed.

Runs what is not yet in --raw, a line a network, and writes the table from what is there. The ResNet wants a GPU; with
the stem that it has for large images ("resnet18, pooled") and 10,000 images a core takes about two hours a seed.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from _arms import ACCURACY, markdown, read_lines, spread, write_lines
from _nets import resnet18, speech_transformer
from _rows import images, speech
from torch import nn

from graftkit import training
from graftkit.compressing import Asked, parse_target
from graftkit.compressing.lab import Lab, Network
from graftkit.compressing.sizes import Descent
from graftkit.contracts import Data, LoadedModel, Observer, SourceRequest
from graftkit.fitting import Journal, Settings
from graftkit.pruning import widths
from graftkit.request import Request
from graftkit.training import Recipe, Teacher

TARGET = "macs=50%"
Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A network, its rows, and how it is trained.

    Attributes:
        build: a fresh module.
        data: from a seed to rows.
        first: epochs of the given network.
        settings: of each step of the compression.
    """

    build: Callable[[], nn.Module]
    data: Callable[[int], Data]
    first: int
    settings: Settings


def cases(options: argparse.Namespace) -> dict[str, Case]:
    """Those whose data were given."""
    found = {}
    if options.fsdd:
        settings = Settings(epochs=10, batch_size=64, recipe=Recipe(learning_rate=1e-3), cycles=1)
        found["transformer"] = Case(speech_transformer, lambda seed: speech(options.fsdd, seed, False), 60, settings)
    if options.cifar:
        settings = Settings(epochs=6, batch_size=128, recipe=Recipe(learning_rate=2e-3), cycles=1)

        def pictures(seed: int) -> Data:
            return images(options.cifar, seed, 48_000, test=10_000)

        found["resnet18"] = Case(lambda: resnet18(options.width), pictures, 30, settings)
        small = replace(settings, epochs=2)
        found["resnet18, pooled"] = Case(lambda: resnet18(options.width, pooled=True), pictures, 12, small)
    return {name: case for name, case in found.items() if not options.nets or name in options.nets}


def runs(case: Case, seed: int, device: str) -> Iterator[tuple[str, Network]]:
    """The given network, and what a compression to half of its multiply-adds makes of it."""
    settings, observer = replace(case.settings, seed=seed, device=device), Observer(on_stage=progress)
    loss, how = training.find_loss("cross_entropy"), {"dynamic": "batch", "output": None}
    lab = Lab(case.data(seed), loss, ACCURACY, settings, how, observer, Journal())
    torch.manual_seed(seed)
    module = case.build()
    found, _ = widths(module, lab.data.example())
    given = lab.trained(lab.network(LoadedModel(module, {}, "net"), found), "given", "given", (case.first,), seed)
    yield "given", given
    request = Request(source=SourceRequest("net"), data="rows", out=Path(), settings=settings)
    lab.teacher = Teacher(given.model, 0.5)
    target = parse_target(TARGET)
    amount = target.cost.given(given.model)
    asked = Asked(request, TARGET)
    reached = Descent(lab, asked, target, given, amount).reach(given, amount / 2, asked.steps, seed)
    yield "pruned", reached.pruned
    if reached.grafted is not None:
        yield "with dendrites", reached.grafted
    yield "what compress ships", reached.chosen
    assert reached.scratch is not None
    yield "same shape from scratch", reached.scratch


def progress(text: str) -> None:
    """To stderr."""
    print(f"  {text}", file=sys.stderr, flush=True)


def told(case: str, name: str, seed: int, network: Network) -> Row:
    """A line of --raw."""
    own = network.measured
    return {"case": case, "row": name, "seed": seed, "parameters": own.parameters, "macs": own.macs,
            "validation": 100 * own.validation, "test": 100 * (own.test or 0.0), "epochs": network.epochs}  # fmt: skip


def table(lines: list[Row]) -> str:
    """Each row's means over seeds, and its difference to the given network of its seed."""
    given = {(line["case"], line["seed"]): line for line in lines if line["row"] == "given"}
    found: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for line in lines:
        found[line["case"], line["row"]].append(line)
    rows = []
    for (case, name), own in found.items():
        gains = [line["test"] - given[case, line["seed"]]["test"] for line in own]
        sizes = (f"{sum(line[key] for line in own) / len(own):,.0f}" for key in ("parameters", "macs"))
        scores = (spread([line[key] for line in own]) for key in ("validation", "test"))
        change = "" if name == "given" else spread(gains, sign=True)
        rows.append([case, name, *sizes, f"{own[0]['epochs']}", f"{len(own)}", *scores, change])
    heads = ("", "", "parameters", "multiply-adds", "epochs", "seeds", "validation", "test", "test − given")
    return markdown(heads, rows)


def main() -> None:
    """Run what is missing, then write."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--fsdd", type=Path, help="fsdd.npz")
    made.add_argument("--cifar", type=Path, help="cifar10_part.npz, or all of CIFAR-10")
    made.add_argument("--nets", nargs="*", default=(), help="only these")
    made.add_argument("--width", type=int, default=64, help="channels of the ResNet's first stage")
    made.add_argument("--seeds", type=int, nargs="*", default=range(5))
    made.add_argument("--device", default="cpu")
    made.add_argument("--threads", type=int, default=1)
    made.add_argument("--raw", type=Path, required=True)
    made.add_argument("--out", type=Path)
    options = made.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    lines = read_lines(options.raw)
    begun = time.perf_counter()
    for name, case in cases(options).items():
        for seed in options.seeds:
            own = [line for line in lines if (line["case"], line["seed"]) == (name, seed)]
            if any(line["row"] == "same shape from scratch" for line in own):
                continue
            lines = [line for line in lines if line not in own]
            for row, network in runs(case, seed, options.device):
                lines.append(told(name, row, seed, network))
                write_lines(options.raw, lines)
                print(f"{time.perf_counter() - begun:6.0f} s  {lines[-1]}", file=sys.stderr, flush=True)
    text = table(lines)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
