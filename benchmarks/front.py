"""Every size of a front of ours against torch-pruning alone, as small and with the same epochs.

Ours is all that `compress --front` does but for its choice of weight decay and sparsity: distillation, short trials of
how to spread a cut, which are not among the epochs, and dendrites that compete, where validation decides. Theirs is
its own cut, trained on the labels. Runs the nets and seeds that are not yet in --raw, and writes table and plot.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from _arms import ACCURACY, Net, markdown, mean_se, read_lines, spread, write_lines
from _nets import digits_cnn, speech_norm_cnn
from _rows import digits, speech
from _torch_pruning import pruned

from graftkit import training
from graftkit.compressing import Asked, parse_target
from graftkit.compressing.lab import Lab, Network
from graftkit.compressing.sizes import FRONT, Descent
from graftkit.contracts import LoadedModel, Observer, SourceRequest
from graftkit.fitting import Journal, Settings
from graftkit.pruning import widths
from graftkit.request import Request
from graftkit.training import Recipe, Teacher

FIRST, EPOCHS, BATCH, RATE = 60, 10, 64, 5e-3
OURS, EVEN, LEAST = "compress", "torch-pruning, layer by layer", "torch-pruning, global"
Row = dict[str, Any]


def nets(options: argparse.Namespace) -> dict[str, Net]:
    """Nets that are larger than they need be."""
    found = {"digits-cnn": Net(digits_cnn, (16, 32), digits)}
    if options.fsdd:
        found["fsdd-cnn"] = Net(speech_norm_cnn, (24, 32), lambda seed: speech(options.fsdd, seed, False))
    return {name: net for name, net in found.items() if not options.nets or name in options.nets}


def runs(net: Net, seed: int) -> Iterator[tuple[str, float, Network]]:
    """What ships at each size, then torch-pruning's, both ways."""
    loss, how = training.find_loss("cross_entropy"), {"dynamic": "batch", "output": None}
    settings = Settings(epochs=EPOCHS, batch_size=BATCH, recipe=Recipe(learning_rate=RATE), cycles=1, seed=seed)
    lab = Lab(net.data(seed), loss, ACCURACY, settings, how, Observer(), Journal())
    module = net.fresh(net.widths, seed)
    found, _ = widths(module, lab.data.example())
    given = lab.trained(lab.network(LoadedModel(module, {}, "net"), found), "given", "given", (FIRST,), seed)
    yield "given", 1.0, given
    request = Request(source=SourceRequest("net"), data="rows", out=Path(), settings=settings)
    asked, target = Asked(request, front=True, scratch=False), parse_target("parameters=100%")
    lab.teacher = Teacher(given.model, asked.distil)
    sizes = Descent(lab, asked, target, given, float(given.measured.parameters)).front(seed)
    for reached in sizes:
        yield OURS, reached.record.share, reached.chosen
    lab.teacher = None
    for everywhere, name in ((False, EVEN), (True, LEAST)):
        network = given
        for share in FRONT[: len(sizes)]:
            network = theirs(lab, network, share * given.measured.parameters, seed, everywhere=everywhere)
            yield name, share, network


def theirs(lab: Lab, network: Network, parameters: float, seed: int, *, everywhere: bool) -> Network:
    """Cut once and trained as long as a size of ours: a step, and two in which dendrites compete."""
    module = pruned(network.module, lab.data.example(), parameters, everywhere=everywhere)
    network = lab.network(LoadedModel(module, {}, "net"), (), epochs=network.epochs)
    for lengths in ((EPOCHS,), (EPOCHS, EPOCHS)):
        network = lab.trained(network, "theirs", "torch-pruning", lengths, seed)
    return network


def told(net: str, arm: str, share: float, seed: int, network: Network) -> Row:
    """A line of --raw."""
    own = network.measured
    return {"net": net, "row": arm, "share": round(share, 4), "seed": seed, "parameters": own.parameters,
            "validation": 100 * own.validation, "test": 100 * (own.test or 0.0), "epochs": network.epochs}  # fmt: skip


def table(lines: list[Row]) -> str:
    """Each size with the differences of ours to theirs, paired by seed."""
    found = {(line["row"], line["share"], line["seed"]): line for line in lines}
    seeds = sorted({line["seed"] for line in lines})
    given = [found["given", 1.0, seed] for seed in seeds]
    rows = [["given", f"{given[0]['parameters']:,}", spread([line["test"] for line in given]), "", "", "", ""]]
    for share in sorted({line["share"] for line in lines}, reverse=True):
        own = {arm: [found[arm, share, seed] for seed in seeds if (arm, share, seed) in found]
               for arm in (OURS, EVEN, LEAST)}  # fmt: skip
        test = {arm: [line["test"] for line in arms] for arm, arms in own.items()}
        gains = [
            spread([a - b for a, b in zip(test[OURS], test[arm], strict=True)], sign=True) for arm in (EVEN, LEAST)
        ]
        sizes = (f"{sum(line['parameters'] for line in arms) / len(arms):,.0f}" for arms in own.values())
        rows.append([f"{share:.0%} ({len(own[OURS])})", " / ".join(sizes), *(spread(test[arm]) for arm in own), *gains])
    heads = ("share (seeds)", "parameters of each", OURS, EVEN, LEAST, f"{OURS} − layer by layer", f"{OURS} − global")
    return markdown(heads, rows)


def plot(lines: list[Row], path: Path) -> None:
    """Test accuracy over parameters, a panel a net."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot as plt

    names = list(dict.fromkeys(line["net"] for line in lines))
    figure, panels = plt.subplots(1, len(names), figsize=(5 * len(names), 4), layout="constrained", squeeze=False)
    for axes, name in zip(panels[0], names, strict=True):
        for arm, colour in ((OURS, "#c2410c"), (EVEN, "#5b6770"), (LEAST, "#3b6fb6")):
            own = [line for line in lines if line["net"] == name and line["row"] == arm]
            by_share = [
                [line for line in own if line["share"] == share] for share in {line["share"]: 0 for line in own}
            ]
            x = [sum(line["parameters"] for line in at) / len(at) for at in by_share]
            y, error = zip(*(mean_se([line["test"] for line in at]) for at in by_share), strict=True)
            axes.errorbar(x, y, error, fmt="o-", ms=4, lw=1.5, color=colour, label=arm)
        axes.set(xscale="log", xlabel="parameters", ylabel="test accuracy, %", title=name)
        low, high = axes.get_xlim()
        ticks = [tick for tick in (300, 500, 1000, 2000, 4000, 7000) if low <= tick <= high]
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.minorticks_off()
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(path)


def main() -> None:
    """Run what is missing, then write."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--seeds", type=int, default=5)
    made.add_argument("--nets", nargs="*", default=(), help="only these")
    made.add_argument("--fsdd", type=Path, help="fsdd.npz")
    made.add_argument("--raw", type=Path, required=True)
    made.add_argument("--out", type=Path)
    made.add_argument("--plot", type=Path)
    options = made.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    lines, begun = read_lines(options.raw), time.perf_counter()
    for seed in range(options.seeds):
        for name, net in nets(options).items():
            own = [line for line in lines if (line["net"], line["seed"]) == (name, seed)]
            if any(line["row"] == LEAST and line["share"] == min(row["share"] for row in own) for line in own):
                continue
            lines = [line for line in lines if line not in own]
            lines += [told(name, arm, share, seed, network) for arm, share, network in runs(net, seed)]
            write_lines(options.raw, lines)
            print(f"{time.perf_counter() - begun:6.0f} s  {name}, seed {seed}", file=sys.stderr, flush=True)
    names = dict.fromkeys(line["net"] for line in lines)
    text = "\n\n".join(f"{name}\n\n{table([line for line in lines if line['net'] == name])}" for name in names)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
    if options.plot:
        plot(lines, options.plot)


if __name__ == "__main__":
    main()
