"""Whether what ships is ever worse than what was given: many nets, seeds and data, compared row by row on test."""

from __future__ import annotations

import argparse
import math
import sys
from collections import defaultdict
from pathlib import Path

import torch
from _arms import Net, Trainee, markdown, nets, shown

from graftkit import fitting, surgery, training
from graftkit.contracts import Observer
from graftkit.fitting import Settings
from graftkit.model import GraftedModel
from graftkit.plan import GraftPlan
from graftkit.planning import plan_cycle
from graftkit.rules import Gradient
from graftkit.training import Recipe

CPU = torch.device("cpu")


def two_sided(better: int, worse: int) -> float:
    """The chance of so uneven a split among rows that only one of two models gets right (McNemar's exact test)."""
    count = better + worse
    tail = sum(math.comb(count, k) for k in range(min(better, worse) + 1)) / 2**count
    return min(1.0, 2 * tail)


def right(model: GraftedModel, rows: object) -> torch.Tensor:
    """For each row whether the class is right."""
    outputs, targets = training.answers(model, rows, CPU)  # type: ignore[arg-type]
    return outputs.argmax(1) == targets


def measure(net: Net, seed: int, options: argparse.Namespace) -> tuple[str, float, float, int, int]:
    """(what ships, accuracy as given, accuracy as shipped, rows that are right only now, rows that were)."""
    data = net.data(seed)
    trainee = Trainee(net.fresh(net.widths, seed), data, seed)
    trainee.scratch(options.base_epochs, options.base_learning_rate)
    model = trainee.model
    before = right(model, data.test)
    plan, _ = plan_cycle(model.traced, rule=Gradient())
    settings = Settings(
        epochs=options.epochs, cycles=1, recipe=Recipe(learning_rate=options.learning_rate), seed=seed, control=False
    )
    criterion, metric = torch.nn.functional.cross_entropy, training.find_metric("accuracy")
    result = fitting.fit_model(model, data, plan, Gradient(), criterion, metric, settings, Observer())
    after = right(result.model, data.test)
    surgery.truncate(model, GraftPlan())
    accuracies = (100 * float(part.float().mean()) for part in (before, after))
    return result.shipped, *accuracies, int((after & ~before).sum()), int((before & ~after).sum())  # type: ignore[return-value]


def main() -> None:
    """Run and print one table."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--seeds", type=int, default=6)
    made.add_argument("--base-epochs", type=int, default=60, help="epochs from scratch")
    made.add_argument("--epochs", type=int, default=30, help="epochs with dendrites")
    made.add_argument("--base-learning-rate", type=float, default=5e-3)
    made.add_argument("--learning-rate", type=float, default=5e-3)
    made.add_argument("--nets", nargs="*", default=(), help="only these, such as digits-cnn")
    made.add_argument("--fsdd", type=Path, help="fsdd.npz")
    made.add_argument("--cifar", type=Path, help="cifar10_part.npz")
    made.add_argument("--mnist", type=Path, help="mnist.npz")
    made.add_argument("--rows", type=int, default=4000, help="images to train on")
    made.add_argument("--unseen", action="store_true")
    options = made.parse_args()
    torch.set_num_threads(1)
    lines, chances = [], []
    for name, net in nets(options).items():
        found: dict[str, list[float]] = defaultdict(list)
        grafted = 0
        for seed in range(options.seeds):
            shipped, before, after, better, worse = measure(net, seed, options)
            grafted += shipped == "grafted"
            found["given"].append(before)
            found["ships"].append(after)
            if worse > better:
                chances.append(two_sided(better, worse))
            print(f"{name} {seed}: {shipped} {before:.2f} {after:.2f} (+{better} -{worse})", file=sys.stderr)
        gains = [after - before for before, after in zip(found["given"], found["ships"], strict=True)]
        cells = [shown(found["given"]), shown(found["ships"]), shown(gains, sign=True), f"{min(gains):+.2f}"]
        lines.append([name, f"{grafted} of {options.seeds}", *cells])
    print(markdown(("", "ships dendrites", "as given", "what ships", "gain", "worst run"), lines))
    least = f"{min(chances):.3f}" if chances else "none"
    print(f"\nRuns that test worse: {len(chances)}; the least of their two-sided chances (McNemar): {least}.")


if __name__ == "__main__":
    main()
