"""Few samples and corrupted inputs: the network itself, the control and the grafted one, by `graftkit evaluate`.

Runs what is not yet in --raw, a line a run, and writes the tables from what is there.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _arms import Net, Trainee, markdown, nets, read_lines, spread, write_lines

from graftkit.augmenting import augment
from graftkit.contracts import Data, Observer, SourceRequest
from graftkit.core.evaluations import EvaluationReport
from graftkit.evaluating import Asked, evaluate
from graftkit.fitting import Settings
from graftkit.request import Request
from graftkit.training import Recipe

NETWORKS = ("given", "control", "grafted")
Row = dict[str, Any]


def saved(data: Data, path: Path) -> Path:
    """The rows as a file."""
    parts = {"train": data.train, "val": data.validation, "test": data.test}
    arrays = {
        f"{letter}_{name}": tensor.numpy()
        for name, rows in parts.items()
        for letter, tensor in zip("xy", rows.tensors, strict=True)  # type: ignore[union-attr]
    }
    np.savez(path, **arrays)
    return path


def measured(net: Net, seed: int, options: argparse.Namespace, folder: Path) -> EvaluationReport:
    """A network trained from scratch, grafted, and evaluated with this seed."""
    data = net.data(seed)
    module = net.fresh(net.widths, seed)
    trainee = Trainee(module, data, seed)
    trainee.scratch(options.epochs, options.learning_rate)
    trainee.model.restore(trainee.given)
    torch.save(module, folder / "net.pt")
    settings = Settings(
        epochs=options.epochs, cycles=1, recipe=Recipe(learning_rate=options.learning_rate), seed=seed, margin=0.0
    )
    request = Request(
        SourceRequest(str(folder / "net.pt")),
        str(saved(data, folder / "rows.npz")),
        folder / "run",
        dendrites=tuple(options.dendrites),
        settings=settings,
    )
    augment(request, Observer())
    return evaluate(Asked(folder / "run", seeds=1, seed=seed, epochs=options.epochs), Observer())


def told(name: str, seed: int, report: EvaluationReport) -> Row:
    """A line of --raw: what is measured, by network, in percent."""
    assert report.corrupted is not None
    found = {"as they are": report.corrupted.clean}
    found |= {kind: report.corrupted.mean(kind) for kind in report.corrupted.corruptions}
    found["mean of all corruptions"] = report.corrupted.mean()
    found |= {f"{100 * record.share:.3g}% of the rows": dict(record.test) for record in report.few}
    scores = {what: [100 * own.get(each, own["given"]) for each in NETWORKS] for what, own in found.items()}
    return {"net": name, "seed": seed, "scores": scores}


def table(lines: list[Row]) -> str:
    """Means with standard errors over seeds, and paired differences."""
    found: dict[str, list[list[float]]] = defaultdict(list)
    for line in lines:
        for what, scores in line["scores"].items():
            found[what].append(scores)
    rows = []
    for what, scores in found.items():
        given, control, grafted = zip(*scores, strict=True)
        gains = [[a - b for a, b in zip(grafted, other, strict=True)] for other in (control, given)]
        rows.append([what, *map(spread, (given, control, grafted)), *(spread(gain, sign=True) for gain in gains)])
    return markdown(("", *NETWORKS, "grafted − control", "grafted − given"), rows)


def missing(lines: list[Row], options: argparse.Namespace) -> Iterator[tuple[str, Net, int]]:
    """What is not in --raw yet."""
    done = {(line["net"], line["seed"]) for line in lines}
    yield from (
        (name, net, seed)
        for seed in range(options.seeds)
        for name, net in nets(options).items()
        if (name, seed) not in done
    )


def main() -> None:
    """Run what is missing, then write."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--seeds", type=int, default=5)
    made.add_argument("--epochs", type=int, default=60, help="from scratch, and again with dendrites or without")
    made.add_argument("--learning-rate", type=float, default=5e-3)
    made.add_argument("--dendrites", nargs="*", default=["conv=context:units=4,mode=gate", "linear=default"])
    made.add_argument("--nets", nargs="*", default=("digits-cnn", "fsdd-cnn"), help="only these")
    made.add_argument("--fsdd", type=Path, help="fsdd.npz")
    made.add_argument("--raw", type=Path, required=True)
    made.add_argument("--out", type=Path)
    options = made.parse_args()
    options.cifar = options.mnist = None
    options.rows, options.unseen = 0, False
    torch.set_num_threads(1)
    lines = read_lines(options.raw)
    for name, net, seed in missing(lines, options):
        with tempfile.TemporaryDirectory() as folder:
            lines.append(told(name, seed, measured(net, seed, options, Path(folder))))
        write_lines(options.raw, lines)
        print(lines[-1], file=sys.stderr, flush=True)
    names = dict.fromkeys(line["net"] for line in lines)
    text = "\n\n".join(f"{name}\n\n{table([line for line in lines if line['net'] == name])}" for name in names)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
