"""MNIST, all 58,000 rows: a network of 41,000 parameters pruned, with distillation, with dendrites, from scratch, and
by torch-pruning alone, at the same sizes and for the same epochs.

Runs what is not yet in --raw, a line a run, and writes the table from what is there.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from _arms import ACCURACY, markdown, mean_se, read_lines, spread, write_lines
from _nets import Widths, grey_lenet
from _rows import images
from _torch_pruning import pruned
from scipy import stats
from torch import nn

from graftkit import training
from graftkit.compressing import Asked, parse_target
from graftkit.compressing.lab import Lab, Network
from graftkit.compressing.sizes import Descent
from graftkit.contracts import LoadedModel, Observer, SourceRequest
from graftkit.fitting import Journal, Settings
from graftkit.pruning import widths
from graftkit.request import Request
from graftkit.training import Recipe, Teacher

GIVEN: Widths = (8, 16, 50)
TARGETS = (16_430, 4_115)  # 40%, 10%
STEPS, BATCH, RATE = 4, 256, 5e-3
CONFIDENCE = 0.99
Row = dict[str, Any]


def lab_of(path: Path, seed: int, epochs: int, device: str) -> Lab:
    """All rows, and how they are learned from."""
    data = images(path, seed, 58_000, test=10_000)
    recipe = Recipe(learning_rate=RATE)
    settings = Settings(epochs=epochs, batch_size=BATCH, recipe=recipe, seed=seed, device=device)
    loss = training.find_loss("cross_entropy")
    return Lab(data, loss, ACCURACY, settings, {"dynamic": "batch", "output": None}, Observer(), Journal())


def given_network(lab: Lab, epochs: int, seed: int) -> Network:
    """Trained from scratch on the labels."""
    torch.manual_seed(seed)
    module = grey_lenet(GIVEN)
    found, _ = widths(module, lab.data.example())
    return lab.trained(lab.network(LoadedModel(module, {}, "lenet"), found), "given", "given", (epochs,), seed)


def ours(lab: Lab, given: Network, target: int, seed: int) -> Iterator[tuple[str, Network]]:
    """Pruned on labels alone, with distillation, with dendrites, and the same shape from scratch."""
    request = Request(source=SourceRequest("lenet"), data="mnist", out=Path(), settings=lab.settings)
    goal = parse_target(f"parameters={target}")
    for name, distils in (("pruned", 0.0), ("pruned, distilled", 0.5)):
        asked = Asked(request, f"parameters={target}", steps=STEPS, dendrites=distils > 0, scratch=distils > 0)
        lab.teacher = Teacher(given.model, distils) if distils else None
        descent = Descent(lab, asked, goal, given, float(given.measured.parameters))
        if not distils:
            network = descent.down(given, target, STEPS, seed)
            yield name, lab.trained(network, "labels", name, more(lab.settings.epochs), seed)
            continue
        reached = descent.reach(given, target, STEPS, seed)
        yield name, reached.pruned
        yield "what compress ships", reached.chosen
        if reached.grafted is not None:
            yield "with dendrites", reached.grafted
        assert reached.scratch is not None
        yield "same shape from scratch", reached.scratch
    lab.teacher = None


def theirs(lab: Lab, given: Network, target: int, seed: int, *, everywhere: bool) -> Network:
    """torch-pruning alone: its magnitudes, the same share of each layer or the least of all, the same epochs.

    Each step takes the smallest share of channels with which the network is as small as ours after that step.
    """
    network = given
    for step in range(1, STEPS + 1):
        goal = given.measured.parameters * (target / given.measured.parameters) ** (step / STEPS)
        module = pruned(network.module, lab.data.example(), goal, everywhere=everywhere)
        network = lab.network(LoadedModel(module, {}, "lenet"), (), epochs=network.epochs)
        network = lab.trained(network, "theirs", "torch-pruning", (lab.settings.epochs,), seed)
    return lab.trained(network, "theirs", "torch-pruning", more(lab.settings.epochs), seed)


def more(epochs: int) -> tuple[int, ...]:
    """What follows the steps: as long as networks with dendrites are trained."""
    return epochs, epochs


def runs(lab: Lab, given: Network, target: int, seed: int, done: set[str]) -> Iterator[Row]:
    """Every arm of a seed at one size, but for those of ours where all are done."""
    if "same shape from scratch" not in done:
        yield told("given", target, seed, given)
        for name, network in ours(lab, given, target, seed):
            yield told(name, target, seed, network)
    for everywhere, name in ((False, "torch-pruning, layer by layer"), (True, "torch-pruning, global")):
        if name not in done:
            yield told(name, target, seed, theirs(lab, given, target, seed, everywhere=everywhere))


def told(name: str, target: int, seed: int, network: Network) -> Row:
    """A line of --raw."""
    own = network.measured
    shape = [m.weight.shape[0] for m in network.module.modules() if isinstance(m, nn.Linear | nn.Conv2d)][:-1]
    return {"row": name, "target": target, "seed": seed, "parameters": own.parameters, "macs": own.macs,
            "validation": 100 * own.validation, "test": 100 * (own.test or 0.0), "epochs": network.epochs,
            "shape": "-".join(map(str, shape))}  # fmt: skip


def table(lines: list[Row]) -> str:
    """Each arm against the given network of its seed, and what 99 of 100 such means lose at most."""
    given = {row["seed"]: row for row in lines if row["row"] == "given"}
    lines = [*given.values(), *(row for row in lines if row["row"] != "given")]
    arms: dict[tuple[float, str], list[Row]] = defaultdict(list)
    for row in lines:
        arms[row["target"] if row["row"] != "given" else 0, str(row["row"])].append(row)
    rows = []
    for (target, name), own in arms.items():
        gains = [row["test"] - given[row["seed"]]["test"] for row in own]
        lost = ""
        if name != "given" and len(own) > 1:
            mean, error = mean_se(gains)
            lost = f"{-mean + float(stats.t.ppf(CONFIDENCE, len(own) - 1)) * error:.2f}"
        counted = f"{sum(row['parameters'] for row in own) / len(own):,.0f}"
        macs = f"{sum(row['macs'] for row in own) / len(own):,.0f}"
        scores = [spread([row[key] for row in own]) for key in ("validation", "test")]
        change = "" if name == "given" else spread(gains, sign=True)
        rows.append(
            [f"{name}{f', {target:,.0f}' if target else ''}", counted, macs, f"{len(own)}", *scores, change, lost]
        )
    heads = ("", "parameters", "multiply-adds", "seeds", "validation", "test", "test − given",
             f"lost at most ({CONFIDENCE:.0%})")  # fmt: skip
    return markdown(heads, rows)


def main() -> None:
    """Run what is missing, then write."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--path", type=Path, required=True, help="mnist.npz")
    made.add_argument("--seeds", type=int, nargs="*", default=range(5))
    made.add_argument("--targets", type=int, nargs="*", default=TARGETS, help="parameters")
    made.add_argument("--epochs", type=int, default=2, help="of each step")
    made.add_argument("--first", type=int, default=12, help="of the given network")
    made.add_argument("--device", default="cpu")
    made.add_argument("--raw", type=Path, required=True)
    made.add_argument("--out", type=Path)
    options = made.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    lines = read_lines(options.raw)
    begun = time.perf_counter()
    given: dict[int, tuple[Lab, Network]] = {}
    for target, seed in ((target, seed) for target in options.targets for seed in options.seeds):
        own = [row for row in lines if (row["seed"], row["target"]) == (seed, target)]
        done = {str(row["row"]) for row in own}
        if any(name.endswith("global") for name in done):
            continue
        lines = [row for row in lines if row not in own or "same shape from scratch" in done]
        if seed not in given:
            lab = lab_of(options.path, seed, options.epochs, options.device)
            given[seed] = lab, given_network(lab, options.first, seed)
        for row in runs(*given[seed], target, seed, done):
            lines.append({**row, "device": options.device})
            write_lines(options.raw, lines)
            print(f"{time.perf_counter() - begun:6.0f} s  {row}", file=sys.stderr, flush=True)
    text = table(lines)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
