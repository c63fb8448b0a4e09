"""What the benchmarks share: small nets and their data, one trained arm with its scores, and the tables."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _nets import Moves, Widths, digits_cnn, digits_mlp, grey_cnn, image_cnn, speech_cnn, speech_norm_cnn
from _rows import digits, images, speech
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from graftkit import surgery, training
from graftkit.api import trace
from graftkit.contracts import Data, Rows
from graftkit.dendrites import build_dendrite
from graftkit.learning import Rule
from graftkit.model import GraftedModel
from graftkit.plan import Graft, GraftPlan
from graftkit.planning import plan_cycle
from graftkit.rules import Gradient
from graftkit.schedules import Cycles, Replay
from graftkit.training import Recipe, Trainer

BATCH = 64
CPU = torch.device("cpu")
ACCURACY = training.find_metric("accuracy")


@dataclass(frozen=True)
class Net:
    """A small net and its data, anew for each seed.

    Attributes:
        build: from channels (or hidden units) to a fresh module; `fresh` with weights that a seed decides.
        widths: the channels of the net that is grafted.
        data: from a seed to rows, split anew by it.
    """

    build: Callable[[Widths], nn.Module]
    widths: Widths
    data: Callable[[int], Data]

    def fresh(self, widths: Widths, seed: int) -> nn.Module:
        """A module with fresh weights."""
        torch.manual_seed(seed)
        return self.build(widths)

    def parameters(self, widths: Widths) -> int:
        """Numbers in all parameters."""
        return sum(p.numel() for p in self.build(widths).parameters())

    def wider(self, target: int) -> Widths:
        """The least uniform widening that has `target` parameters or more."""
        for percent in range(100, 400):
            widths = tuple(round(width * percent / 100) for width in self.widths)
            if self.parameters(widths) >= target:
                return widths
        raise ValueError(f"no widening of {self.widths} reaches {target} parameters")


def nets(options: argparse.Namespace, *, norm: bool = False) -> dict[str, Net]:
    """The nets whose data were given, or those in `options.nets`; with `norm`, only with batch norm."""
    found = {
        "digits-cnn": Net(digits_cnn, (6, 12), digits),
        "digits-small-cnn": Net(digits_cnn, (3, 5), digits),
    }
    if not norm:
        found["digits-mlp"] = Net(digits_mlp, (8, 8), digits)
    if options.fsdd:
        build = speech_norm_cnn if norm else speech_cnn
        found["fsdd-cnn"] = Net(build, (8, 5), lambda seed: speech(options.fsdd, seed, options.unseen))
    if options.cifar:
        found["cifar-cnn"] = Net(image_cnn, (12, 20, 28), lambda seed: images(options.cifar, seed, options.rows))
    if options.mnist:
        found["mnist-cnn"] = Net(grey_cnn, (6, 8, 10), lambda seed: images(options.mnist, seed, options.rows))
    return {name: net for name, net in found.items() if not options.nets or name in options.nets}


# ── arms ─────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Arm:
    """One trained arm: its size, and validation and test accuracy after each of its epochs."""

    parameters: int
    validation: tuple[float, ...]
    test: tuple[float, ...]

    @property
    def best(self) -> int:
        """The epoch that graftkit would keep: the best validated of the last quarter, of equal ones the latest."""
        return self._best(self.settled)

    @property
    def settled(self) -> int:
        """How many epochs are in the last quarter."""
        count, settled = len(self.validation), Recipe().settled
        return sum(training.may_keep(epoch + 1, count, settled) for epoch in range(count))

    def numbers(self, last: int | None = None) -> tuple[float, float, float]:
        """In percent: validation and test at the best validated of the last epochs, test at the last."""
        best = self._best(last or self.settled)
        return 100 * self.validation[best], 100 * self.test[best], 100 * self.test[-1]

    def _best(self, last: int) -> int:
        count = len(self.validation)
        return max(range(count - last, count), key=lambda epoch: (self.validation[epoch], epoch))


class Trainee:
    """One net and one seed: trains from scratch, then every arm from the state that left.

    All arms of a seed see the same rows in the same order, and the same recipe. `moves` changes the inputs of a batch
    at random. All is done on the device, the rows with it.
    """

    def __init__(
        self,
        module: nn.Module,
        data: Data,
        seed: int,
        moves: Moves = lambda inputs: inputs,
        device: torch.device = CPU,
    ):
        self.data, self.seed, self.moves, self.device = placed(data, device), seed, moves, device
        self.model: GraftedModel = surgery.empty(trace(module, data.example(), device=str(device)))
        self.given = self.model.snapshot()

    def scratch(self, epochs: int, learning_rate: float) -> Arm:
        """Train from scratch; the best validated state is where later arms begin."""
        arm = self.train((), epochs, learning_rate, keep=True)
        self.given = self.model.snapshot()
        return arm

    def control(self, epochs: int, learning_rate: float) -> Arm:
        """The same epochs once more, nothing grafted."""
        return self.train((), epochs, learning_rate)

    def graft(
        self, kinds: Sequence[str], epochs: int, learning_rate: float, *, sites: Sequence[str] = (), join: str
    ) -> Arm:
        """One dendrite at each site, then the same epochs."""
        plan, _ = plan_cycle(self.model.traced, dendrites=kinds, sites=sites, rule=Gradient(), join=join)
        return self.train(plan.grafts, epochs, learning_rate)

    def back(self) -> None:
        """Bring the model back to where arms begin."""
        surgery.put_back(self.model, GraftPlan(), self.given, build_dendrite)

    def train(
        self,
        grafts: Sequence[Graft],
        epochs: int,
        learning_rate: float,
        *,
        keep: bool = False,
        rule: Rule | None = None,
        shrink: float = 1.0,
        smoothing: float = 0.0,
    ) -> Arm:
        """These grafts, then so many epochs; with `keep` the model ends in the best validated state of them."""
        surgery.put_back(self.model, GraftPlan(), self.given, build_dendrite)
        batches = training.batches(self.data.train, BATCH, seed=self.seed)
        scores: list[tuple[float, float]] = []
        with training.seeded(self.seed):
            trainer = Trainer(
                self.model,
                grafts,
                rule=rule or Gradient(),
                schedule=Cycles(epochs, 1) if grafts else Replay((epochs,)),
                build=build_dendrite,
                criterion=partial(functional.cross_entropy, label_smoothing=smoothing),
                baseline=self._score(self.data.validation),
                steps_per_epoch=len(batches),
                recipe=Recipe(learning_rate=learning_rate, shrink=shrink),
                seed=self.seed,
            )
            while not trainer.finished:
                for inputs, targets in batches:
                    trainer.learn(self.moves(inputs), targets)
                scores.append((self._score(self.data.validation), self._score(self.data.test)))
                trainer.step(scores[-1][0])
        if trainer.diverged:
            raise RuntimeError(f"an arm diverged: {trainer.stopped}")
        arm = Arm(self.model.parameter_count(), *(tuple(part) for part in zip(*scores, strict=True)))
        if keep:
            kept = trainer.best_trained or trainer.best
            surgery.put_back(self.model, kept.plan, kept.state, build_dendrite)
        return arm

    def _score(self, rows: Rows | None) -> float:
        assert rows is not None, "the benchmarks' data all have test rows"
        return training.evaluate(self.model, rows, ACCURACY, self.device)


def placed(data: Data, device: torch.device) -> Data:
    """The same rows, on the device."""
    if device == CPU:
        return data
    parts = (data.train, data.validation, data.test)
    train, validation, test = (
        TensorDataset(*(tensor.to(device) for tensor in rows.tensors))  # type: ignore[union-attr]
        for rows in parts
    )
    return replace(data, train=train, validation=validation, test=test)


Results = dict[str, list[Arm]]  # row of the table -> one arm a seed


class Progress:
    """Lines on stderr, one an arm."""

    def __init__(self) -> None:
        self.begun = time.perf_counter()

    def say(self, net: str, seed: int, row: str, arm: Arm) -> None:
        """What an arm came to."""
        _, test, last = arm.numbers()
        elapsed = time.perf_counter() - self.begun
        print(f"{elapsed:6.0f} s  {net}  seed {seed}  {row}: test {test:.2f}, last {last:.2f}", file=sys.stderr)


# ── tables ───────────────────────────────────────────────────────────────────────────────────────


def mean_se(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard error; the error of one value is not known."""
    array = np.asarray(values, dtype=np.float64)
    return float(array.mean()), float(array.std(ddof=1) / math.sqrt(len(array))) if len(array) > 1 else math.nan


def shown(values: Sequence[float], *, sign: bool = False) -> str:
    """`mean ± standard error`."""
    mean, error = mean_se(values)
    return f"{mean:+.2f} ± {error:.2f}" if sign else f"{mean:.2f} ± {error:.2f}"


def spread(values: Sequence[float], *, sign: bool = False) -> str:
    """As `shown`; one value as it is."""
    return shown(values, sign=sign) if len(values) > 1 else f"{values[0]:{'+' if sign else ''}.2f}"


def read_lines(path: Path) -> list[dict[str, Any]]:
    """What an earlier start of a benchmark left, a JSON line each; nothing where there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def write_lines(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """What `read_lines` reads."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def paired(ours: Sequence[Arm], theirs: Sequence[Arm], number: int) -> list[float]:
    """Differences seed by seed of one of `Arm.numbers`."""
    return [a.numbers()[number] - b.numbers()[number] for a, b in zip(ours, theirs, strict=True)]


def compared(results: Results, control: str, *, base: str) -> list[list[str]]:
    """Table rows: size, validation, test, and paired differences to the control, best validated and last epoch."""
    size = results[base][0].parameters
    rows = []
    for name, arms in results.items():
        numbers = [arm.numbers() for arm in arms]
        parameters = arms[0].parameters
        growth = f" (+{100 * (parameters - size) / size:.0f}%)" if parameters != size else ""
        differs = [shown(paired(arms, results[control], n), sign=True) if name != control else "" for n in (1, 2)]
        cells = [f"{parameters:,}{growth}", *(shown([n[i] for n in numbers]) for i in (0, 1))]
        rows.append([name, *cells, *differs])
    return rows


HEADINGS = ("", "parameters", "validation", "test", "test − control", "last epoch − control")


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def heading(options: argparse.Namespace, seeds: int) -> str:
    """The exact command (folders left out), torch's version and the seeds."""
    words = [Path(word).name if "/" in word else word for word in sys.argv[1:]]
    command = " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *words])
    return f"`{command}`\n\ntorch {torch.__version__}, one thread, seeds 0 to {seeds - 1}; mean ± standard error."


def parser(purpose: str) -> argparse.ArgumentParser:
    """The options that the benchmarks share."""
    made = argparse.ArgumentParser(description=purpose)
    made.add_argument("--seeds", type=int, default=10)
    made.add_argument("--base-epochs", type=int, default=120, help="epochs from scratch")
    made.add_argument("--epochs", type=int, default=60, help="epochs after grafting")
    made.add_argument("--base-learning-rate", type=float, default=5e-3)
    made.add_argument("--learning-rate", type=float, default=5e-3, help="after grafting")
    made.add_argument("--nets", nargs="*", default=(), help="only these, such as digits-cnn")
    made.add_argument("--fsdd", type=Path, help="fsdd.npz")
    made.add_argument("--cifar", type=Path, help="cifar10_part.npz")
    made.add_argument("--mnist", type=Path, help="mnist.npz")
    made.add_argument("--rows", type=int, default=5000, help="images to train on")
    made.add_argument("--unseen", action="store_true", help="spoken digits: test on a voice that was not trained on")
    made.add_argument("--out", type=Path, help="Markdown file to write")
    made.add_argument("--raw", type=Path, help="JSON file for every arm's scores")
    return made


def finish(text: str, options: argparse.Namespace, raw: Mapping[str, Results]) -> None:
    """Print the text, and write what was asked for."""
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
    keep_raw(options, raw)


def keep_raw(options: argparse.Namespace, raw: Mapping[str, Results]) -> None:
    """Write every arm's scores where that was asked for."""
    if options.raw:
        plain = {net: {row: [asdict(arm) for arm in arms] for row, arms in rows.items()} for net, rows in raw.items()}
        options.raw.write_text(json.dumps(plain), encoding="utf-8")
