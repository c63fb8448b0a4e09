"""Accuracy against parameters: plain shapes, more training, wider nets and dendrites, each with the same epochs.

Runs what is not yet in --raw, a line a run, and writes table and plot from what is there.
"""

from __future__ import annotations

import argparse
import functools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from _arms import Arm, Net, Trainee
from _frontier_report import write
from _nets import Moves, Widths, digits_cnn, grey_cnn, image_cnn, mirrored, shifted, speech_cnn, still
from _perforated import perforated
from _raw import keep, read
from _rows import digits, images, spoken
from _widen import widened

from graftkit.plan import Graft
from graftkit.planning import plan_cycle
from graftkit.rules import Gradient


@dataclass(frozen=True)
class Suite:
    """What is trained, and for how long; chosen on validation rows, alike for all arms.

    Attributes:
        build: from channels to a net.
        data: from the path of the data and a seed or fold to rows.
        epochs: of every arm, all phases together.
        plain: shapes that are trained as they are.
        grafted: those that get dendrites, too, after half of the epochs or from the start.
        wider: what a shape becomes where it is widened after half of the epochs.
        kinds: the dendrites.
        moves: what changes a batch at random.
    """

    build: Callable[[Widths], torch.nn.Module]
    data: Callable[[Path | None, int], object]
    epochs: int
    plain: tuple[Widths, ...]
    grafted: tuple[Widths, ...]
    wider: dict[Widths, Widths]
    kinds: tuple[str, ...]
    moves: Moves = still
    learning_rate: float = 5e-3


GATE = "context:units={},mode=gate"
SHRINK = 0.3  # what weights are multiplied by half way in the arms that learn anew: chosen on digits and spoken digits
SMOOTHING = (
    0.1  # the share of a label that goes to all classes, in the arms that say so: a usual one, tried on digits first
)
SPEECH = Suite(
    build=speech_cnn,
    data=spoken,
    epochs=140,
    plain=((3, 3), (4, 4), (6, 4), (6, 6), (8, 6), (6, 8), (8, 8), (8, 12), (12, 12), (12, 16), (16, 24), (24, 32)),
    grafted=((4, 4), (6, 4), (6, 6), (6, 8), (8, 8), (8, 12)),
    wider={(6, 6): (6, 8), (6, 8): (8, 8)},
    kinds=(GATE.format(2),),
    moves=shifted,
)
SUITES = {
    "speech": SPEECH,
    "voices": Suite(
        build=speech_cnn,
        data=functools.partial(spoken, unseen=True),
        epochs=140,
        plain=((6, 6), (6, 8), (8, 8), (8, 12), (12, 16)),
        grafted=((6, 6), (6, 8), (8, 8)),
        wider={(6, 8): (8, 8)},
        kinds=SPEECH.kinds,
        moves=shifted,
    ),
    "cifar": Suite(
        build=image_cnn,
        data=lambda path, seed: images(path, seed, 10_000),  # type: ignore[arg-type]
        epochs=16,
        plain=(
            (3, 4, 6),
            (4, 6, 8),
            (6, 10, 14),
            (8, 13, 18),
            (10, 16, 23),
            (12, 20, 28),
            (13, 21, 29),
            (14, 22, 30),
            (16, 27, 38),
            (20, 32, 44),
        ),
        grafted=((4, 6, 8), (6, 10, 14), (8, 13, 18), (12, 20, 28), (16, 27, 38)),
        wider={(12, 20, 28): (13, 21, 29)},
        kinds=(GATE.format(4),),
        moves=mirrored,
        learning_rate=1e-2,
    ),
    "mnist": Suite(
        build=grey_cnn,
        data=lambda path, seed: images(path, seed, 6_000),  # type: ignore[arg-type]
        epochs=20,
        plain=((6, 8, 10), (7, 9, 12), (8, 12, 16)),
        grafted=((6, 8, 10),),
        wider={(6, 8, 10): (7, 9, 12)},
        kinds=(GATE.format(4),),
        learning_rate=1e-2,
    ),
    "digits": Suite(
        build=digits_cnn,
        data=lambda path, seed: digits(seed),
        epochs=140,
        plain=((2, 4), (3, 5), (4, 6), (4, 8), (6, 8), (6, 12), (8, 16)),
        grafted=((3, 5), (4, 6), (4, 8)),
        wider={(3, 5): (4, 6), (4, 6): (4, 8)},
        kinds=(GATE.format(4),),
    ),
}
WAYS = (
    "plain",
    "widened",
    "from the start",
    "continued",
    "grafted",
    "continued anew",
    "grafted anew",
    "grafted anew with copies",
    "continued anew, smoothed",
    "grafted anew with copies, smoothed",
    "PerforatedAI",
)


def arms(
    suite: Suite, path: Path | None, widths: Widths, seed: int, skip: frozenset[str], device: torch.device
) -> Iterator[tuple[str, Arm]]:
    """Every arm that begins with this shape, but for those in `skip`."""
    net = Net(suite.build, widths, lambda seed: suite.data(path, seed))  # type: ignore[arg-type,return-value]
    data = net.data(seed)
    half, rate = suite.epochs // 2, suite.learning_rate
    shape = "-".join(map(str, widths))

    def fresh(module: torch.nn.Module) -> Trainee:
        return Trainee(module, data, seed, suite.moves, device)

    if f"plain {shape}" not in skip:
        yield f"plain {shape}", fresh(net.fresh(widths, seed)).train((), suite.epochs, rate)
    if widths not in suite.grafted:
        return
    trainee = fresh(net.fresh(widths, seed))
    plan, _ = plan_cycle(trainee.model.traced, dendrites=suite.kinds, rule=Gradient())
    both, _ = plan_cycle(trainee.model.traced, dendrites=(*suite.kinds, "full"), rule=Gradient(), every=True)
    if f"from the start {shape}" not in skip:
        yield f"from the start {shape}", trainee.train(plan.grafts, suite.epochs, rate)
    late: dict[str, tuple[Sequence[Graft], float, float]] = {
        f"continued {shape}": ((), 1.0, 0.0),
        f"grafted {shape}": (plan.grafts, 1.0, 0.0),
        f"continued anew {shape}": ((), SHRINK, 0.0),
        f"grafted anew {shape}": (plan.grafts, SHRINK, 0.0),
        f"grafted anew with copies {shape}": (both.grafts, SHRINK, 0.0),
        f"continued anew, smoothed {shape}": ((), SHRINK, SMOOTHING),
        f"grafted anew with copies, smoothed {shape}": (both.grafts, SHRINK, SMOOTHING),
    }
    wider = f"widened {shape} to {'-'.join(map(str, suite.wider[widths]))}" if widths in suite.wider else ""
    if {*late, *filter(None, [wider])} <= skip:
        return
    trainee.back()
    trainee.scratch(half, rate)
    state = {name: tensor.clone() for name, tensor in trainee.given.items()}
    for row, (grafts, shrink, smoothing) in late.items():
        if row not in skip:
            yield row, trainee.train(grafts, half, rate, shrink=shrink, smoothing=smoothing)
    if wider and wider not in skip:
        narrow = net.fresh(widths, seed)
        narrow.load_state_dict({name.removeprefix("base."): tensor for name, tensor in state.items()})
        wide = widened(narrow, net.fresh(suite.wider[widths], seed), seed=seed)  # type: ignore[arg-type]
        yield wider, fresh(wide).control(half, rate)


def unwanted(suite: Suite, widths: Widths, ways: Sequence[str]) -> set[str]:
    """Rows of a shape that were not asked for."""
    shape, wide = ("-".join(map(str, w)) for w in (widths, suite.wider.get(widths, ())))
    rows = {way: f"{way} {shape}" for way in WAYS} | {"widened": f"widened {shape} to {wide}"}
    return {row for way, row in rows.items() if way not in ways}


def theirs(
    interpreter: Path, suite: Suite, path: Path | None, widths: Widths, seed: int, skip: frozenset[str]
) -> list[tuple[str, Arm]]:
    """The arm of PerforatedAI, in an interpreter of its own."""
    row = f"PerforatedAI {'-'.join(map(str, widths))}"
    if row in skip or widths not in suite.grafted:
        return []
    return [(row, perforated(interpreter, suite, suite.data(path, seed), widths, seed))]  # type: ignore[arg-type]


def work(
    name: str,
    kinds: str | None,
    path: Path | None,
    widths: Widths,
    seed: int,
    skip: frozenset[str],
    interpreter: Path | None,
    device: str = "cpu",
) -> tuple[list[tuple[str, Arm]], str]:
    """All arms of one shape and seed, in a process of their own, and what went wrong, if anything did."""
    torch.set_num_threads(1)
    suite = chosen(SUITES[name], kinds)
    found: list[tuple[str, Arm]] = []
    try:
        for row, arm in arms(suite, path, widths, seed, skip, torch.device(device)):
            found.append((row, arm))
        found += theirs(interpreter, suite, path, widths, seed, skip) if interpreter else []
    except Exception as error:  # what was done before it stays
        return found, f"{type(error).__name__}: {error}"
    return found, ""


def chosen(suite: Suite, kinds: str | None, shapes: Sequence[str] | None = None) -> Suite:
    """The suite with other dendrites, or with some of its shapes alone."""
    suite = replace(suite, kinds=(kinds,)) if kinds else suite
    if shapes is None:
        return suite
    wanted = {tuple(map(int, shape.split("-"))) for shape in shapes}
    if wanted - {*suite.plain, *suite.grafted}:
        raise SystemExit(f"there are the shapes {', '.join('-'.join(map(str, w)) for w in suite.plain)}")
    plain, grafted = (tuple(widths for widths in part if widths in wanted) for part in (suite.plain, suite.grafted))
    return replace(suite, plain=plain, grafted=grafted)


def settings(suite: Suite, device: str = "cpu") -> str:
    """What else a run depends on: runs of other settings are not used."""
    kinds, moves, where = ", ".join(suite.kinds), suite.moves.__name__, f", on {device}" if device != "cpu" else ""
    return f"{suite.epochs} epochs, {suite.learning_rate:g}, {kinds}, {moves}, shrunk to {SHRINK:g}{where}"


def main() -> None:
    """Run what is missing, then write."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("suite", choices=SUITES)
    made.add_argument("--path", type=Path, help="the data, but for digits")
    made.add_argument("--seeds", type=int, default=10)
    made.add_argument("--workers", type=int, default=1)
    made.add_argument("--perforated", type=Path, help="a Python that has perforatedai==3.2.9 and torch")
    made.add_argument("--ways", nargs="*", choices=WAYS, default=WAYS, help="only these")
    made.add_argument("--device", default="cpu")
    made.add_argument("--raw", type=Path, required=True, help="JSON lines of all runs, read and added to")
    made.add_argument("--out", type=Path, help="Markdown file to write")
    made.add_argument("--plot", type=Path, help="SVG file to write")
    made.add_argument("--kinds", help="other dendrites than the suite's, as own+around")
    made.add_argument("--shapes", nargs="+", help="only these, as 12-20-28")
    options = made.parse_args()
    suite = chosen(SUITES[options.suite], options.kinds, options.shapes)
    found = read(options.raw, settings(suite, options.device))
    begun = time.perf_counter()
    with ProcessPoolExecutor(options.workers) as pool, options.raw.open("a", encoding="utf-8") as raw:
        waiting = {}
        for seed in range(options.seeds):
            for widths in dict.fromkeys((*suite.grafted, *suite.plain)):
                skip = {row for row, runs in found.items() if seed in runs}
                skip |= unwanted(suite, widths, options.ways)
                task = pool.submit(
                    work,
                    options.suite,
                    options.kinds,
                    options.path,
                    widths,
                    seed,
                    frozenset(skip),
                    options.perforated,
                    options.device,
                )
                waiting[task] = seed
        for task in as_completed(waiting):
            seed = waiting[task]
            runs, trouble = task.result()
            if trouble:
                print(f"seed {seed}: {trouble}", file=sys.stderr)
            for row, arm in runs:
                found[row][seed] = arm
                keep(raw, row, seed, settings(suite, options.device), arm)
                print(
                    f"{time.perf_counter() - begun:6.0f} s  seed {seed}  {row}: {arm.numbers()[1]:.2f}", file=sys.stderr
                )
    write(options.suite, found, options.out, options.plot)


if __name__ == "__main__":
    main()
