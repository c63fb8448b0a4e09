"""MNIST: a network of 41,000 parameters made 60% smaller; what shape, dendrites and distillation each add to that.

Every arm is trained from scratch for the same epochs. The shape is chosen by mean validation accuracy over the seeds.
A teacher's answers are mixed half and half into the targets (Hinton, Vinyals and Dean 2015, at temperature 1).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

import torch
from _arms import CPU, Arm, Net, Trainee, markdown, mean_se, paired, shown
from _nets import Widths, grey_lenet
from _raw import keep, read
from _rows import images
from scipy import stats
from torch.nn import functional
from torch.utils.data import TensorDataset

from graftkit import surgery, training
from graftkit.api import trace
from graftkit.contracts import Data
from graftkit.dendrites import build_dendrite
from graftkit.model import GraftedModel
from graftkit.plan import Graft
from graftkit.planning import plan_cycle
from graftkit.rules import Gradient

GIVEN: Widths = (8, 16, 50)
ALIKE: Widths = (5, 10, 31)  # each layer narrower by the same share
SHAPES: tuple[Widths, ...] = ((12, 16, 17), (8, 16, 18))
KIND = "context:units=4,mode=gate"  # at both convolutions, from the start
ROWS, TEST, LEARNING_RATE, SHARE, CONFIDENCE = 6_000, 10_000, 5e-3, 0.4, 0.99
Found = dict[str, dict[int, Arm]]


def distilled(data: Data, teacher: Trainee) -> Data:
    """The same rows, half of each target what the teacher says, at temperature 1."""
    assert isinstance(data.train, TensorDataset)
    inputs, targets = data.train.tensors
    answers, _ = training.answers(teacher.model, data.train, CPU)
    told = 0.5 * functional.one_hot(targets, 10) + 0.5 * torch.softmax(answers, 1)
    return replace(data, train=TensorDataset(inputs, told))


def arms(path: Path, seed: int, epochs: int) -> tuple[list[tuple[str, Arm]], str]:
    """Every arm of a seed, and what went wrong, if anything did."""
    torch.set_num_threads(1)
    net = Net(grey_lenet, GIVEN, lambda seed: images(path, seed, ROWS, test=TEST))
    data = net.data(seed)
    found: list[tuple[str, Arm]] = []

    def train(row: str, widths: Widths, *, grafts: bool = False, teacher: Trainee | None = None) -> Trainee:
        trainee = Trainee(net.fresh(widths, seed), distilled(data, teacher) if teacher else data, seed)
        arm = trainee.train(plan(trainee.model) if grafts else (), epochs, LEARNING_RATE, keep=True)
        found.append((row, arm))
        return trainee

    try:
        given = train("given", GIVEN)
        train("narrower alike", ALIKE)
        for widths in SHAPES:
            for grafts in (False, True):
                for teacher in (None, given):
                    train(name(widths, grafts=grafts, distils=bool(teacher)), widths, grafts=grafts, teacher=teacher)
    except Exception as error:  # what was done before it stays
        return found, f"{type(error).__name__}: {error}"
    return found, ""


def plan(model: GraftedModel) -> tuple[Graft, ...]:
    """Dendrites at both convolutions."""
    return plan_cycle(model.traced, dendrites=[f"conv={KIND}"], rule=Gradient())[0].grafts


def name(widths: Widths, *, grafts: bool = False, distils: bool = False) -> str:
    """The row of a smaller net."""
    return f"shape {'-'.join(map(str, widths))}" + ", dendrites" * grafts + ", distilled" * distils


def rows() -> dict[str, tuple[Widths, bool]]:
    """All rows of the table in order, with the shape and whether it has dendrites."""
    each = {name(w, grafts=g, distils=d): (w, g) for w in SHAPES for g in (False, True) for d in (False, True)}
    return {"given": (GIVEN, False), "narrower alike": (ALIKE, False), **each}


def multiply_adds(widths: Widths, *, grafts: bool) -> int:
    """Of one picture."""
    model = surgery.empty(trace(grey_lenet(widths), torch.zeros(2, 1, 28, 28)))
    surgery.graft(model, plan(model) if grafts else (), build_dendrite, seed=0)
    return model.macs()


def table(found: Found) -> str:
    """Every arm against the given network, the loss that chance over seeds allows, and what each step adds.

    Raises ValueError for an arm that is larger than the share that was set.
    """
    seeds = sorted(set.intersection(*(set(found[row]) for row in rows())))
    runs = {row: [found[row][seed] for seed in seeds] for row in rows()}
    lines = []
    for row, (widths, grafts) in rows().items():
        of = runs[row]
        if row != "given" and of[0].parameters > SHARE * runs["given"][0].parameters:
            raise ValueError(f"{row} has {of[0].parameters:,} parameters, more than {SHARE:.0%} of those given")
        sizes = f"{of[0].parameters:,}", f"{multiply_adds(widths, grafts=grafts):,}"
        scores = [shown([arm.numbers()[number] for arm in of]) for number in (0, 1)]
        lines.append([row, *sizes, *scores, *(_against(of, runs["given"]) if row != "given" else ("", ""))])
    heads = ("parameters", "multiply-adds", "validation", "test", "test − given", f"lost at most ({CONFIDENCE:.0%})")
    return f"{len(seeds)} seeds\n\n{markdown(('', *heads), lines)}\n\n{_shares(runs)}"


def _against(ours: Sequence[Arm], given: Sequence[Arm]) -> tuple[str, str]:
    gains = paired(ours, given, 1)
    mean, error = mean_se(gains)
    most = -mean + float(stats.t.ppf(CONFIDENCE, len(gains) - 1)) * error
    return shown(gains, sign=True), f"{most:.2f}"


def _shares(runs: Mapping[str, Sequence[Arm]]) -> str:
    """From the network that is narrower alike, one step after another, in the shape that validates best."""
    shape = max(SHAPES, key=lambda widths: mean_se([arm.numbers()[0] for arm in runs[name(widths)]])[0])
    plain, grown = name(shape), name(shape, grafts=True)
    steps = (
        ("shape", plain, "narrower alike"),
        ("dendrites", grown, plain),
        ("distillation, without dendrites", name(shape, distils=True), plain),
        ("distillation, with them", name(shape, grafts=True, distils=True), grown),
    )
    lines = [[what, new, old, shown(paired(runs[new], runs[old], 1), sign=True)] for what, new, old in steps]
    return markdown(("what is added", "so it is", "against", "test"), lines)


def main() -> None:
    """Run what is missing, then write."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--path", type=Path, required=True, help="mnist.npz")
    made.add_argument("--seeds", type=int, default=10)
    made.add_argument("--epochs", type=int, default=24)
    made.add_argument("--workers", type=int, default=1)
    made.add_argument("--raw", type=Path, required=True, help="JSON lines of all runs, read and added to")
    made.add_argument("--out", type=Path, help="Markdown file to write")
    options = made.parse_args()
    settings = f"{options.epochs} epochs, {LEARNING_RATE:g}, {ROWS} rows, {TEST} to test, batch norms, {KIND}"
    found = read(options.raw, settings)
    with ProcessPoolExecutor(options.workers) as pool, options.raw.open("a", encoding="utf-8") as raw:
        missing = [seed for seed in range(options.seeds) if any(seed not in found[row] for row in rows())]
        waiting = {pool.submit(arms, options.path, seed, options.epochs): seed for seed in missing}
        for task in as_completed(waiting):
            seed, (made_now, trouble) = waiting[task], task.result()
            print(f"seed {seed}: {trouble or 'done'}", file=sys.stderr, flush=True)
            for row, arm in made_now:
                if seed not in found[row]:
                    keep(raw, row, seed, settings, arm)
                found[row].setdefault(seed, arm)
    text = table(found)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
