"""Measures whether dendrites should join before the batch norm that follows a convolution, or behind it."""

from __future__ import annotations

import argparse
from collections import defaultdict

import torch
from _arms import (
    Net,
    Progress,
    Results,
    Trainee,
    finish,
    heading,
    keep_raw,
    markdown,
    mean_se,
    nets,
    paired,
    parser,
    shown,
)

CONTROL = "control"
KINDS = ("full", "context:units=4,mode=add", "context:units=4,mode=gate")
JOINS = {"call": "before the batch norm", "activation": "behind it"}
HEADINGS = ("", *(f"test, {place}" for place in JOINS.values()), "behind − before", "last epoch: behind − before")


def measure(name: str, net: Net, seed: int, options: argparse.Namespace, results: Results, progress: Progress) -> None:
    """All arms of one seed."""
    trainee = Trainee(net.fresh(net.widths, seed), net.data(seed), seed)
    after = (options.epochs, options.learning_rate)
    trainee.scratch(options.base_epochs, options.base_learning_rate)
    results[CONTROL].append(trainee.control(*after))
    for kind in KINDS:
        for join in JOINS:
            row = f"{kind}, {join}"
            results[row].append(trainee.graft((kind,), *after, join=join))
            progress.say(name, seed, row, results[row][-1])


def table(results: Results) -> list[list[str]]:
    """The control, then a row for each kind with the difference between the two places."""
    tests = {row: shown([arm.numbers()[1] for arm in arms]) for row, arms in results.items()}
    rows = [["control, nothing grafted", tests[CONTROL], tests[CONTROL], "", ""]]
    for kind in KINDS:
        before, behind = (results[f"{kind}, {join}"] for join in JOINS)
        differs = [shown(paired(behind, before, number), sign=True) for number in (1, 2)]
        rows.append([kind, *(tests[f"{kind}, {join}"] for join in JOINS), *differs])
    return [*rows, ["all three kinds", "", "", *_together(results)]]


def _together(results: Results) -> list[str]:
    """The differences' mean over kinds, seed by seed."""
    cells = []
    for number in (1, 2):
        kinds = [paired(results[f"{k}, activation"], results[f"{k}, call"], number) for k in KINDS]
        cells.append(shown([mean_se(values)[0] for values in zip(*kinds, strict=True)], sign=True))
    return cells


def main() -> None:
    """Run what was asked for and print a table for each net."""
    options = parser(__doc__).parse_args()
    torch.set_num_threads(1)
    raw: dict[str, Results] = {}
    text, progress = [heading(options, options.seeds)], Progress()
    for name, net in nets(options, norm=True).items():
        raw[name] = defaultdict(list)
        for seed in range(options.seeds):
            measure(name, net, seed, options, raw[name], progress)
            keep_raw(options, raw)
        text += [f"**{name}**", markdown(HEADINGS, table(raw[name]))]
    finish("\n\n".join(text), options, raw)


if __name__ == "__main__":
    main()
