"""How far a trial can be trusted: one budget spent by several measures of worth, each then trained properly."""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from _arms import (
    HEADINGS,
    Net,
    Progress,
    Results,
    Trainee,
    compared,
    finish,
    heading,
    keep_raw,
    markdown,
    nets,
    parser,
)
from torch.nn import functional

from graftkit import training
from graftkit.contracts import Rows
from graftkit.costs import parse_budget
from graftkit.fitting import TRIAL
from graftkit.plan import Graft
from graftkit.planning import plan_cycle
from graftkit.rules import Gradient
from graftkit.spending import spend, surely
from graftkit.training import Worth

BASE, CONTROL = "plain, before that", "control: as many epochs again"
DEFAULT = "no budget: the default dendrites at every site"
MODES = {"learning": Gradient(), "frozen": Gradient(freeze=True)}


def ablated(trainee: Trainee, worths: Sequence[Worth], rows: Rows) -> list[Worth]:
    """Worth as the loss that silencing one neuron's dendrite adds, everything else as trained."""
    whole = _losses(trainee, rows)
    found = []
    for worth, dendrite in zip(worths, trainee.model.members(), strict=True):
        mean, error = torch.zeros_like(worth.mean), torch.zeros_like(worth.error)
        for neuron in range(len(mean)):
            kept = [p.detach().clone() for p in dendrite.strengths()]
            with torch.no_grad():
                for p in dendrite.strengths():
                    p[neuron] = 0
            lost = _losses(trainee, rows) - whole
            with torch.no_grad():
                for p, value in zip(dendrite.strengths(), kept, strict=True):
                    p.copy_(value)
            mean[neuron], error[neuron] = lost.mean(), lost.std() / len(lost) ** 0.5
        found.append(replace(worth, mean=mean, error=error, whole_error=float(error.square().sum().sqrt())))
    return found


def _losses(trainee: Trainee, rows: Rows) -> torch.Tensor:
    model = trainee.model.eval()
    outputs, targets = training.predict(lambda inputs: model(*model.arrange(inputs)), rows)
    return functional.cross_entropy(outputs, targets, reduction="none").double()


def drawn(worths: Sequence[Worth], seed: int) -> list[Worth]:
    """Worth that is nothing but chance."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for worth in worths:
        mean = torch.rand(worth.mean.shape, generator=generator, dtype=torch.float64) + 0.01
        found.append(replace(worth, mean=mean, error=torch.full_like(mean, 1e-9), whole_error=0.0))
    return found


def halves(worths: Sequence[Sequence[Worth]], read: Callable[[Worth], torch.Tensor]) -> float:
    """Rank correlation over all neurons between what two halves of the rows say."""
    first, second = (np.concatenate([read(w).numpy() for w in half]) for half in worths)
    ranks = [np.argsort(np.argsort(values)) for values in (first, second)]
    return float(np.corrcoef(*ranks)[0, 1])


def measure(name: str, net: Net, seed: int, options: argparse.Namespace, results: Results, progress: Progress) -> dict:
    """All arms of one seed; returns how far two halves of the validation rows agree, by measure."""
    data = net.data(seed)
    trainee = Trainee(net.fresh(net.widths, seed), data, seed)
    trial_epochs = max(1, options.epochs // TRIAL)

    def keep(row: str, arm) -> None:
        results[row].append(arm)
        progress.say(name, seed, row, arm)

    keep(BASE, trainee.scratch(options.base_epochs, options.base_learning_rate))
    keep(CONTROL, trainee.control(options.epochs + trial_epochs, options.learning_rate))
    keep(DEFAULT, trainee.graft((), options.epochs, options.learning_rate, join="activation"))
    plan, _ = plan_cycle(trainee.model.traced, rule=Gradient(), every=True)
    budget = parse_budget(options.budget)
    agree = {}
    for mode, rule in MODES.items():
        trainee.train(plan.grafts, trial_epochs, options.learning_rate, keep=True, rule=rule)
        size = max(1, len(data.validation) // 20)
        worths = training.attribute(trainee.model, training.batches(data.validation, size), functional.cross_entropy)
        measured = {"shapley": worths}
        splits = {"shapley": shapley_halves}
        if not options.quick:
            measured["ablation"] = ablated(trainee, worths, data.validation)
            splits["ablation"] = ablation_halves
        for kind, split in splits.items():
            parts = split(trainee, worths, data.validation)
            agree[f"{kind}, network {mode}"] = halves(parts, lambda worth: worth.mean)
            agree[f"{kind}, network {mode}, drawn together"] = halves(parts, surely)
        if mode == "learning":
            measured["chance"] = drawn(worths, seed)
        for kind, found in measured.items():
            trainee.back()
            grafts, spent = spend(trainee.model, found, budget, epochs=trial_epochs)
            words = "chance" if kind == "chance" else f"{kind}, network {mode}"
            print(f"{words}: {spent.spent:.0f} of {spent.allowance:.0f}: {_words(grafts)}", file=sys.stderr)
            arm = trainee.train(grafts, options.epochs, options.learning_rate) if grafts else results[BASE][-1]
            keep(f"{options.budget} by {words}", arm)
    return agree


def _words(grafts: Sequence[Graft]) -> str:
    return ", ".join(
        f"{g.site} {g.kind} {dict(g.options).get('mode', '')} {'all' if g.neurons is None else len(g.neurons)}"
        for g in grafts
    )


def _parts(rows: Rows) -> list[Rows]:
    inputs, targets = rows.tensors
    return [torch.utils.data.TensorDataset(inputs[k::2], targets[k::2]) for k in (0, 1)]


def shapley_halves(trainee: Trainee, worths: Sequence[Worth], rows: Rows) -> list:
    """What each half of the rows says."""
    parts = [training.batches(part, max(1, len(part) // 20)) for part in _parts(rows)]
    return [training.attribute(trainee.model, part, functional.cross_entropy) for part in parts]


def ablation_halves(trainee: Trainee, worths: Sequence[Worth], rows: Rows) -> list:
    """What each half of the rows says."""
    return [ablated(trainee, worths, part) for part in _parts(rows)]


def main() -> None:
    """Run what was asked for and print a table for each net."""
    made = parser(__doc__)
    made.add_argument("--budget", default="parameters=+8%")
    made.add_argument("--quick", action="store_true", help="without ablation, which evaluates once a neuron")
    options = made.parse_args()
    torch.set_num_threads(1)
    raw: dict[str, Results] = {}
    text, progress = [heading(options, options.seeds)], Progress()
    for name, net in nets(options).items():
        raw[name] = defaultdict(list)
        agreed = defaultdict(list)
        for seed in range(options.seeds):
            for kind, value in measure(name, net, seed, options, raw[name], progress).items():
                agreed[kind].append(value)
            keep_raw(options, raw)
        lines = [f"{kind}: {np.mean(values):.2f}" for kind, values in agreed.items()]
        text += [f"**{name}**", markdown(HEADINGS, compared(raw[name], CONTROL, base=BASE))]
        text += ["Rank correlation between what two halves of the validation rows say: " + "; ".join(lines) + "."]
    finish("\n\n".join(text), options, raw)


if __name__ == "__main__":
    main()
