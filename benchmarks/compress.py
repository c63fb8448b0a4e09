"""MNIST: a network of 41,000 parameters made 60% smaller; what shape, dendrites and distillation each add to that.

Every arm is trained from scratch for the same epochs. Shapes and kinds of one size are chosen by their mean validation
accuracy over the seeds. A teacher's answers are mixed half and half into the targets (Hinton, Vinyals and Dean 2015).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path

import torch
from _arms import CPU, Arm, Net, Trainee, markdown, mean_se, paired, shown
from _nets import Widths, grey_lenet
from _raw import read
from _rows import images
from scipy import stats
from torch.nn import functional
from torch.utils.data import TensorDataset

from graftkit import training
from graftkit.contracts import Data
from graftkit.planning import plan_cycle
from graftkit.rules import Gradient

GIVEN: Widths = (8, 16, 50)
ALIKE: Widths = (5, 10, 31)  # each layer narrower by the same share
SHAPES: tuple[Widths, ...] = ((12, 20, 14), (16, 24, 10))
KINDS = ("context:units=4,mode=gate",)
SMALLER: Widths = (12, 20, 13)  # with dendrites as large as the shapes above
ROWS, TEST, LEARNING_RATE, LIMIT, CONFIDENCE, WARMTH = 6_000, 10_000, 5e-3, 0.4, 0.99, 2.0


def distilled(data: Data, teacher: Trainee) -> Data:
    """The same rows, half of each target what the teacher says."""
    assert isinstance(data.train, TensorDataset)
    inputs, targets = data.train.tensors
    answers, _ = training.answers(teacher.model, data.train, CPU)
    told = 0.5 * functional.one_hot(targets, 10) + 0.5 * torch.softmax(answers / WARMTH, 1)
    return Data(TensorDataset(inputs, told), data.validation, data.test, data.labels, data.classes, data.name)


def arms(path: Path, seed: int, epochs: int, skip: frozenset[str]) -> list[tuple[str, Arm]]:
    """Every arm of a seed, where one is missing."""
    torch.set_num_threads(1)
    if skip >= set(_rows()):
        return []
    net = Net(grey_lenet, GIVEN, lambda seed: images(path, seed, ROWS, test=TEST))
    data, found = net.data(seed), []

    def train(row: str, widths: Widths, kind: str = "", teacher: Trainee | None = None) -> Trainee:
        trainee = Trainee(net.fresh(widths, seed), distilled(data, teacher) if teacher else data, seed)
        plan = plan_cycle(trainee.model.traced, dendrites=[f"conv={kind}"], rule=Gradient())[0].grafts if kind else ()
        found.append((row, trainee.train(plan, epochs, LEARNING_RATE, keep=True)))
        return trainee

    given = train("given", GIVEN)
    train("narrower alike", ALIKE)
    for widths in SHAPES:
        train(_shape(widths), widths)
        train(f"{_shape(widths)}, distilled", widths, teacher=given)
    for kind in KINDS:
        train(_grafted(kind), SMALLER, kind)
        train(f"{_grafted(kind)}, distilled", SMALLER, kind, teacher=given)
    return found


def _shape(widths: Widths) -> str:
    return f"shape {'-'.join(map(str, widths))}"


def _grafted(kind: str) -> str:
    return f"dendrites {kind} on {'-'.join(map(str, SMALLER))}"


def _rows() -> list[str]:
    """All rows of the table, in order."""
    each = [*map(_shape, SHAPES), *map(_grafted, KINDS)]
    return ["given", "narrower alike", *(row + more for row in each for more in ("", ", distilled"))]


def table(found: Mapping[str, Mapping[int, Arm]]) -> str:
    """Every arm against the given network, the loss of which a seed's chance allows, and what each step adds."""
    seeds = sorted(set.intersection(*(set(found[row]) for row in _rows())))
    runs = {row: [found[row][seed] for seed in seeds] for row in _rows()}
    lines = []
    for row, of in runs.items():
        scores = [shown([arm.numbers()[number] for arm in of]) for number in (0, 1)]
        change, bound = ("", "") if row == "given" else _against(of, runs["given"])
        lines.append([row, f"{of[0].parameters:,}", *scores, change, bound])
    heads = ("", "parameters", "validation", "test", "test − given", f"lost at most ({CONFIDENCE:.0%})")
    return f"{markdown(heads, lines)}\n\n{_shares(runs)}"


def _against(ours: Sequence[Arm], given: Sequence[Arm]) -> tuple[str, str]:
    gains = paired(ours, given, 1)
    mean, error = mean_se(gains)
    most = -mean + float(stats.t.ppf(CONFIDENCE, len(gains) - 1)) * error
    return shown(gains, sign=True), f"{max(0.0, most):.2f}"


def _shares(runs: Mapping[str, Sequence[Arm]]) -> str:
    """From the network that is narrower alike, one step after another, each the best on validation."""

    def best(rows: Sequence[str]) -> str:
        return max(rows, key=lambda row: mean_se([arm.numbers()[0] for arm in runs[row]])[0])

    shape, grafted = best([_shape(widths) for widths in SHAPES]), best([_grafted(kind) for kind in KINDS])
    steps = (
        ("shape", shape, "narrower alike"),
        ("dendrites", grafted, shape),
        ("distillation, without dendrites", f"{shape}, distilled", shape),
        ("distillation, with them", f"{grafted}, distilled", grafted),
    )
    lines = [
        [what, after, before, shown(paired(runs[after], runs[before], 1), sign=True)] for what, after, before in steps
    ]
    return markdown(("what is added", "so it is", "against", "test"), lines)


def main() -> None:
    """Run what is missing, then write."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--path", type=Path, required=True, help="mnist.npz")
    made.add_argument("--seeds", type=int, default=10)
    made.add_argument("--epochs", type=int, default=12)
    made.add_argument("--workers", type=int, default=1)
    made.add_argument("--raw", type=Path, required=True, help="JSON lines of all runs, read and added to")
    made.add_argument("--out", type=Path, help="Markdown file to write")
    options = made.parse_args()
    settings = f"{options.epochs} epochs, {LEARNING_RATE:g}, {ROWS} rows"
    found = read(options.raw, settings)
    with ProcessPoolExecutor(options.workers) as pool, options.raw.open("a", encoding="utf-8") as raw:
        waiting = {}
        for seed in range(options.seeds):
            skip = frozenset(row for row, runs in found.items() if seed in runs)
            waiting[pool.submit(arms, options.path, seed, options.epochs, skip)] = seed
        for task in as_completed(waiting):
            for row, arm in task.result():
                found[row][waiting[task]] = arm
                raw.write(json.dumps({"row": row, "seed": waiting[task], "settings": settings, **asdict(arm)}) + "\n")
                print(f"seed {waiting[task]}  {row}: {arm.numbers()[1]:.2f}", file=sys.stderr, flush=True)
            raw.flush()
    text = table(found)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
