"""Where a gate pays: the metric and the time of dendrites that run for some rows alone, at several thresholds.

Each network is trained without dendrites first. Its dendrites then learn with it or beside it, frozen; what ships of
that is exported with `--gate`. Cells give what the gate takes off the validation metric of the ordinary file, in
points, and the time of a row over that file's, in turn; means over seeds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from _nets import digits_cnn, digits_mlp, grey_lenet, speech_cnn
from _ratio import print_table
from _rows import digits, images, spoken
from torch import nn
from torch.nn.functional import cross_entropy

import graftkit as gk
from graftkit import shipping, training
from graftkit.contracts import Data
from graftkit.core.errors import GraftkitError
from graftkit.core.gates import GateReport, GateTrial

SHARES = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Net:
    """A network, its rows by seed, and the site at which most of its arithmetic lies behind what can be shared."""

    build: Callable[[], nn.Module]
    data: Callable[[int], Data]
    late: str


@dataclass(frozen=True)
class Arm:
    """A way to graft."""

    name: str
    rule: str
    dendrites: str = ""
    sites: str = ""


@dataclass(frozen=True)
class Found:
    """One seed: the validation metric of the network as given, what was measured, and whether it shipped."""

    given: float
    report: GateReport
    shipped: bool


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--fsdd", type=Path, help="spoken digits, as benchmarks/get_data.py fetches them")
    arguments.add_argument("--mnist", type=Path, help="MNIST, from there, too")
    arguments.add_argument("--only", nargs="*", help="networks")
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--base-epochs", type=int, default=10)
    arguments.add_argument("--epochs", type=int, default=10, help="of the dendrites")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = []
    for name, net in _nets(given).items():
        for arm in _arms(net):
            rows.append(f"{name} | {arm.name} | {_cells([_measured(net, arm, s, given) for s in range(given.seeds)])}")
            print(rows[-1], file=sys.stderr, flush=True)
    shares = [f"{100 * share:.0f}%" for share in SHARES]
    header = ("network", "dendrites", "as given %", "ordinary %", *shares, "pays", "chosen", "test, points")
    print_table(header, rows, packages=["torch", "onnx", "onnxruntime"])


def _nets(given: argparse.Namespace) -> dict[str, Net]:
    found = {
        "digits cnn": Net(lambda: digits_cnn((32, 64)), digits, "3"),
        "digits mlp": Net(lambda: digits_mlp((512, 512)), digits, "3"),
        "digits wide mlp": Net(lambda: digits_mlp((1024, 1024)), digits, "3"),
    }
    if given.fsdd:
        found["speech cnn"] = Net(lambda: speech_cnn((64, 128)), lambda seed: spoken(given.fsdd, seed), "3")
    if given.mnist:
        found["mnist lenet"] = Net(lambda: grey_lenet((16, 32, 128)), lambda seed: images(given.mnist, seed, 2000), "4")
    return {name: net for name, net in found.items() if not given.only or name in given.only}


def _arms(net: Net) -> Sequence[Arm]:
    frozen = "gradient:freeze=true"
    return (
        Arm("`full` everywhere, all learns", "gradient", "full", "*"),
        Arm("`full` everywhere, base frozen", frozen, "full", "*"),
        Arm(f"`full` at site {net.late} alone, base frozen", frozen, "full", net.late),
        Arm("default, all learns", "gradient"),
    )


def _measured(net: Net, arm: Arm, seed: int, given: argparse.Namespace) -> Found | None:
    """None where no graft beat the network as given."""
    torch.manual_seed(seed)
    data, module = net.data(seed), net.build()
    _learn(module, data, given.base_epochs)
    traced = gk.trace(module.eval(), data.example())
    plan = gk.make_plan(traced, dendrites=arm.dendrites, sites=arm.sites) if arm.dendrites else gk.make_plan(traced)
    fitted = gk.fit(
        traced, data, plan=plan, rule=arm.rule, epochs=given.epochs, cycles=1, control=False, margin=0, seed=seed
    )
    reports: list[GateReport] = []
    with TemporaryDirectory() as folder:
        try:
            path = Path(folder) / "gate.onnx"
            shipping.ship_gated(fitted.model, path, data, training.accuracy, on_measured=reports.append)
        except GraftkitError as error:
            print(f"  {arm.name}, seed {seed}: {error}", file=sys.stderr, flush=True)
        return Found(fitted.baseline.validation, reports[0], path.exists()) if reports else None


def _learn(module: nn.Module, data: Data, epochs: int) -> None:
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    for epoch in range(epochs):
        for inputs, labels in training.batches(data.train, 64, seed=epoch):
            optimizer.zero_grad()
            cross_entropy(module(inputs), labels).backward()
            optimizer.step()


def _cells(found: Sequence[Found | None]) -> str:
    there = [each for each in found if each is not None]
    if not there:
        return f"no dendrites shipped {'| ' * (len(SHARES) + 4)}"
    mean = statistics.fmean
    base, before = mean(each.given for each in there), mean(each.report.before for each in there)
    trials = (_cell([(each.report, _near(each.report, share)) for each in there]) for share in SHARES)
    shipped = [each.report for each in there if each.shipped]
    chosen = ", ".join(f"{100 * r.chosen.share:.0f}%: {r.chosen.latency.median:.2f}" for r in shipped)
    tests = ", ".join(f"{100 * (r.test[1] - r.test[0]):+.2f}" for r in shipped if r.test)
    pays = f"{len(shipped)} of {len(there)}"
    return f"{100 * base:.2f} | {100 * before:.2f} | {' | '.join(trials)} | {pays} | {chosen} | {tests}"


def _near(report: GateReport, share: float) -> GateTrial:
    return min(report.trials, key=lambda trial: abs(trial.share - share))


def _cell(trials: Sequence[tuple[GateReport, GateTrial]]) -> str:
    lost = statistics.fmean(100 * (trial.metric - report.before) for report, trial in trials)
    return f"{lost:+.2f}, {statistics.fmean(trial.latency.median for _, trial in trials):.2f}"


if __name__ == "__main__":
    main()
