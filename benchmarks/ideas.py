"""A search among ideas for dendrites, in plain torch: what wins here is built, and measured properly elsewhere.

Runs what is not yet in --raw, a line a run, and prints a table of what is there.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import torch
from _arms import BATCH, Arm, markdown, shown
from _ideas import IDEAS, Thinking
from _nets import Widths
from _raw import keep, read
from frontier import SUITES
from torch import Tensor
from torch.nn import functional
from torch.utils.data import TensorDataset

UNITS = {"speech": 2, "cifar": 4, "mnist": 4}
Results = dict[str, dict[int, Arm]]


def train(suite: str, path: Path, widths: Widths, names: str, late: bool, seed: int) -> Arm:
    """One net, scored after its last epoch; with dendrites after half of them if `late`, and a learning rate anew."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    asked = SUITES[suite]
    data = asked.data(path, seed)
    net, (x, y) = Thinking(asked.build(widths)), data.train.tensors
    if names and not late:
        net.grow(names, UNITS[suite])
    halves = 2 if late else 1
    for half in range(halves):
        if half and names:
            net.grow(names, UNITS[suite])
        epochs, rate = asked.epochs // halves, asked.learning_rate
        order = torch.Generator().manual_seed(seed + 1000 * half)
        optimizer = torch.optim.AdamW(net.parameters(), lr=rate)
        steps = epochs * (len(x) // BATCH)
        course = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.05)
        for _step, rows in zip(range(steps), draws(len(x), order), strict=False):
            torch.manual_seed(int(rows[0]) + seed)  # how a batch is moved does not hang on what was drawn before
            loss = functional.cross_entropy(net(asked.moves(x[rows])), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            course.step()
    found = [score(net, part) for part in (data.validation, data.test)]
    return Arm(sum(weight.numel() for weight in net.parameters()), (found[0],), (found[1],))


def draws(count: int, order: torch.Generator) -> Iterator[Tensor]:
    """Rows of batches without end: all in a new order each time round, but for a rest too small for a batch."""
    while True:
        yield from torch.randperm(count, generator=order)[: count // BATCH * BATCH].split(BATCH)


def score(net: torch.nn.Module, rows: TensorDataset) -> float:
    """Accuracy, 0 to 1."""
    net.eval()
    with torch.no_grad():
        right = [(net(x).argmax(-1) == y) for x, y in zip(*(t.split(500) for t in rows.tensors), strict=True)]
    net.train()
    return float(torch.cat(right).float().mean())


def at_size(found: Results, plain: Sequence[str], parameters: int, seed: int) -> float | None:
    """What plain nets of so many parameters reach with this seed: a line over the logarithm of their number."""
    arms = sorted((found[row][seed].parameters, found[row][seed].test[0]) for row in plain if seed in found[row])
    for (small, low), (large, high) in itertools.pairwise(arms):
        if small <= parameters <= large:
            return low + (high - low) * math.log(parameters / small) / math.log(large / small)
    return None


def table(found: Results) -> str:
    """All rows, each beside the plain net of its shape and plain nets of its size."""
    plain = [row for row in found if row.endswith(" plain")]
    lines = []
    for row, arms in sorted(found.items(), key=lambda item: (item[0].split()[0], item[1][min(item[1])].parameters)):
        base, seeds = found.get(f"{row.split()[0]} plain", {}), sorted(arms)
        beside = [100 * (arms[s].test[0] - base[s].test[0]) for s in seeds if s in base]
        sized = [(arms[s].test[0], at_size(found, plain, arms[s].parameters, s)) for s in seeds]
        level = [100 * (ours - theirs) for ours, theirs in sized if theirs is not None]
        cells = [shown([100 * getattr(arms[s], part)[0] for s in seeds]) for part in ("validation", "test")]
        differs = ["" if row in plain or not values else shown(values, sign=True) for values in (beside, level)]
        lines.append([row, f"{arms[seeds[0]].parameters:,}", str(len(seeds)), *cells, *differs])
    return markdown(
        ("", "parameters", "runs", "validation", "test", "− plain, same shape", "− plain, same size"), lines
    )


def main() -> None:
    """Run what is missing, then print."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("suite", choices=UNITS)
    made.add_argument("--path", type=Path, required=True, help="the data")
    made.add_argument("--shapes", nargs="+", default=(), help="such as 6-8: with each of the ideas")
    made.add_argument("--plain", nargs="*", default=(), help="other shapes, without dendrites")
    made.add_argument("--ideas", nargs="*", default=tuple(IDEAS), help="`+` between names that come together")
    made.add_argument("--late", action="store_true", help="dendrites after half of the epochs")
    made.add_argument("--seeds", type=int, default=10)
    made.add_argument("--workers", type=int, default=1)
    made.add_argument("--raw", type=Path, required=True, help="JSON lines of all runs, read and added to")
    options = made.parse_args()
    settings = f"{options.suite}{', half way' if options.late else ''}"
    found = read(options.raw, settings)
    wanted = [(shape, "") for shape in (*options.shapes, *options.plain)]
    wanted += [(shape, idea) for idea in options.ideas for shape in options.shapes]
    with ProcessPoolExecutor(options.workers) as pool, options.raw.open("a", encoding="utf-8") as raw:
        waiting = {}
        for seed in range(options.seeds):
            for shape, names in wanted:
                row = f"{shape} {names or 'plain'}"
                if seed not in found[row]:
                    widths = tuple(map(int, shape.split("-")))
                    given = (options.suite, options.path, widths, names, options.late, seed)
                    waiting[pool.submit(train, *given)] = row, seed
        for task in as_completed(waiting):
            row, seed = waiting[task]
            found[row][seed] = task.result()
            keep(raw, row, seed, settings, found[row][seed])
            print(f"seed {seed}  {row}: {100 * found[row][seed].test[0]:.2f}", file=sys.stderr)
    print(table({row: arms for row, arms in found.items() if arms}))


if __name__ == "__main__":
    main()
