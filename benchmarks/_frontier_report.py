"""Table and plot of `frontier.py`: what each arm reached, and both fronts, chosen on validation rows alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from _arms import Arm, markdown, mean_se, shown

Found = Mapping[str, Mapping[int, Arm]]  # from rows and seeds to runs
PLAIN, GRAFTED = ("plain", "continued", "continued anew", "widened"), ("grafted", "grafted anew", "from the start")
BESIDE = ("grafted anew with copies", "PerforatedAI")  # compared with more training, and no part of a front
MARKS: Mapping[str, str] = dict(zip((*PLAIN, *GRAFTED, *BESIDE), "osPD^>v*X", strict=True))


def write(suite: str, found: Found, out: Path | None, plot: Path | None) -> None:
    """Print the table, and write what was asked for."""
    complete = {row: runs for row, runs in found.items() if runs}
    # where an arm has fewer epochs of its own, because it began half way, all choose from as many as that one
    last = min(arm.settled for runs in complete.values() for arm in runs.values())
    complete = {row: {seed: _ending(arm, last) for seed, arm in runs.items()} for row, runs in complete.items()}
    tables = (part(complete) for part in (_table, _together, _anew, _fronts, _same_size))
    text = "\n\n".join(markdown(heads, rows) for heads, rows in tables if rows)
    print(text)
    if out:
        out.write_text(text + "\n", encoding="utf-8")
    if plot:
        _plot(suite, complete, plot)


def _ending(arm: Arm, last: int) -> Arm:
    """An arm of which all that is left may be chosen."""
    return replace(arm, validation=arm.validation[-last:], test=arm.test[-last:])


def _way(row: str) -> str:
    """How a net is trained, without its shape."""
    return row.split()[0] if row.startswith("widened") else row.rsplit(" ", 1)[0]


def _numbers(runs: Mapping[int, Arm], number: int, seeds: Sequence[int]) -> list[float]:
    return [runs[seed].numbers(len(runs[seed].test))[number] for seed in seeds]


def _size(runs: Mapping[int, Arm]) -> int:
    return next(iter(runs.values())).parameters


def _table(found: Found) -> tuple[Sequence[str], list[list[str]]]:
    rows = []
    for row in sorted(found, key=lambda row: (_size(found[row]), row)):
        runs = found[row]
        seeds = sorted(runs)
        cells = [shown(_numbers(runs, number, seeds)) for number in (0, 1)]
        rows.append([row, f"{_size(runs):,}", str(len(seeds)), *cells, _against(found, row)])
    return ("", "parameters", "runs", "validation", "test", "test − continued, same shape"), rows


def _against(found: Found, row: str) -> str:
    """The difference to more training of the same shape, seed by seed, and the share of its errors that are gone."""
    shape = row.split()[1] if row.startswith("widened") else row.split()[-1]
    control = found.get(f"continued {shape}")
    if control is None or row == f"continued {shape}":
        return ""
    seeds = sorted(set(found[row]) & set(control))
    ours, theirs = (_numbers(runs, 1, seeds) for runs in (found[row], control))
    gone = (mean_se(ours)[0] - mean_se(theirs)[0]) / max(1e-9, 100 - mean_se(theirs)[0])
    return f"{shown([a - b for a, b in zip(ours, theirs, strict=True)], sign=True)} ({gone:+.0%} of the errors)"


def _together(found: Found) -> tuple[Sequence[str], list[list[str]]]:
    """Every way of going on against more training, all shapes of a seed together."""
    ways: dict[str, list[str]] = {}
    for row in found:
        way, shape = _way(row), row.split()[-1]
        if f"continued {shape}" in found and way not in ("continued", "widened"):
            ways.setdefault(way, []).append(shape)
    rows = []
    for way, shapes in ways.items():
        pairs = [(found[f"{way} {shape}"], found[f"continued {shape}"]) for shape in shapes]
        seeds = sorted(set.intersection(*(set(runs) for pair in pairs for runs in pair)))
        if not seeds:
            continue
        ours, theirs = (
            [sum(scores) / len(shapes) for scores in zip(*(_numbers(p[side], 1, seeds) for p in pairs), strict=True)]
            for side in (0, 1)
        )
        gains = [a - b for a, b in zip(ours, theirs, strict=True)]
        gone = mean_se(gains)[0] / max(1e-9, 100 - mean_se(theirs)[0])
        rows.append([way, ", ".join(shapes), str(len(seeds)), shown(gains, sign=True), f"{gone:+.0%} of the errors"])
    return ("against more training", "shapes", "runs", "test − continued", ""), rows


def _anew(found: Found) -> tuple[Sequence[str], list[list[str]]]:
    """What dendrites add where weights are shrunk with and without them."""
    rows = []
    for row in (row for row in found if row.startswith("grafted anew")):
        smoothed = ", smoothed" * _way(row).endswith("smoothed")
        control = found.get(f"continued anew{smoothed} {row.split()[-1]}")
        if control is None:
            continue
        seeds = sorted(set(found[row]) & set(control))
        ours, theirs = (_numbers(runs, 1, seeds) for runs in (found[row], control))
        gains = [a - b for a, b in zip(ours, theirs, strict=True)]
        rows.append([row, f"{_size(found[row]):,}", str(len(seeds)), shown(gains, sign=True)])
    return ("learning anew", "parameters", "runs", "test − continued anew, the same way"), rows


def best_within(found: Found, family: Sequence[str], budget: int) -> str | None:
    """The row that validates best among those of a family with so many parameters at most."""
    there = [row for row in found if _way(row) in family and _size(found[row]) <= budget]
    return max(there, key=lambda row: mean_se(_numbers(found[row], 0, sorted(found[row])))[0], default=None)


def _fronts(found: Found) -> tuple[Sequence[str], list[list[str]]]:
    rows: list[list[str]] = []
    for budget in sorted({_size(runs) for row, runs in found.items() if _way(row) in GRAFTED}):
        plain, grafted = (best_within(found, family, budget) for family in (PLAIN, GRAFTED))
        if plain is None or grafted is None:
            continue
        seeds = sorted(set(found[plain]) & set(found[grafted]))
        ours, theirs = (_numbers(found[row], 1, seeds) for row in (grafted, plain))
        differs = shown([a - b for a, b in zip(ours, theirs, strict=True)], sign=True)
        cells = [f"{row} ({_size(found[row]):,}): {shown(n)}" for row, n in ((plain, theirs), (grafted, ours))]
        rows.append([f"{budget:,}", *cells, differs])
    return ("parameters at most", "best plain net", "best with dendrites", "dendrites − plain"), rows


def _same_size(found: Found) -> tuple[Sequence[str], list[list[str]]]:
    """Dendrites against plain nets of their size: a line over log parameters between the two that are next to it."""
    plain = {_size(runs): row for row, runs in found.items() if _way(row) == "plain"}
    rows = []
    for row in (row for row in found if _way(row) in GRAFTED):
        size = _size(found[row])
        low, high = (max((n for n in plain if n <= size), default=0), min((n for n in plain if n > size), default=0))
        if not (low and high):
            continue
        part = math.log(size / low) / math.log(high / low)
        seeds = sorted(set(found[row]) & set(found[plain[low]]) & set(found[plain[high]]))
        if not seeds:
            continue
        ours, smaller, larger = (_numbers(found[name], 1, seeds) for name in (row, plain[low], plain[high]))
        gains = [a - (1 - part) * b - part * c for a, b, c in zip(ours, smaller, larger, strict=True)]
        rows.append([row, f"{size:,}", f"{plain[low]} ({low:,}), {plain[high]} ({high:,})", str(len(seeds)),
                     shown(gains, sign=True)])  # fmt: skip
    return ("at equal size", "parameters", "on the line between", "runs", "test − plain"), rows


def _plot(suite: str, found: Found, path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7.5, 4.5), layout="constrained")
    colours = {**dict.fromkeys(PLAIN, "#5b6770"), **dict.fromkeys(GRAFTED, "#c2410c"), BESIDE[0]: "#d39b2a",
               BESIDE[1]: "#3b6fb6"}  # fmt: skip
    for way, mark in MARKS.items():
        rows = [row for row in found if _way(row) == way]
        points = [(_size(found[row]), *mean_se(_numbers(found[row], 1, sorted(found[row])))) for row in rows]
        if points:
            x, y, error = zip(*points, strict=True)
            axes.errorbar(x, y, error, fmt=mark, ms=5, lw=0.8, color=colours[way], alpha=0.55, label=way)
    _front(axes.step, found, PLAIN, colours[PLAIN[0]], "plain nets")
    _front(axes.step, found, GRAFTED, colours[GRAFTED[0]], "with dendrites")
    axes.set(xscale="log", xlabel="parameters", ylabel="test accuracy, %", title=suite)
    low, high = axes.get_xlim()
    ticks = [t for t in (300, 500, 750, 1000, 1500, 2000, 3000, 4000, 6000, 8000, 12000, 20000) if low <= t <= high]
    axes.set_xticks(ticks, [f"{t:,}" for t in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=8, loc="best")
    figure.savefig(path)


def _front(step: Callable[..., object], found: Found, kinds: Sequence[str], colour: str, name: str) -> None:
    """The test accuracy of what validates best within each size."""
    sizes = sorted({_size(runs) for row, runs in found.items() if _way(row) in kinds})
    if len(sizes) < 2:
        return
    rows = [best_within(found, kinds, size) for size in sizes]
    means = [mean_se(_numbers(found[row], 1, sorted(found[row])))[0] for row in rows if row]
    step(sizes, means, where="post", color=colour, lw=2, label=f"{name}, chosen on validation")
