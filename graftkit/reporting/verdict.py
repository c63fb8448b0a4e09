"""What a run found, in plain sentences, the least flattering first."""

from __future__ import annotations

from collections.abc import Callable

from graftkit.core.records import Measurement, RunReport
from graftkit.reporting import wording
from graftkit.reporting.results import mean_and_spread, pairs, shown_seed

SMALL = 0.01  # one point of accuracy, and about as little for a metric that ends at 1
Split = tuple[str, Callable[[Measurement], float | None]]
SPLITS: tuple[Split, ...] = (("validation", lambda m: m.validation), ("test", lambda m: m.test))


def verdict(report: RunReport) -> list[str]:
    """What the run found, as sentences; higher values of the metric are taken as better.

    First whatever speaks against the dendrites: a control that does as well, then a model that ships
    unchanged; then what was gained on each part of the data, and how much of it is the dendrites' own.
    """
    sentences = [*_control_wins(report), *_ships_unchanged(report)]
    best = _best(report)
    if best is None:
        sentences += ["No network with dendrites was kept, so there is no gain of theirs to report."]
        sentences += [_continued(report, split) for split in SPLITS if _difference(report, split) is not None]
    else:
        sentences += [_gain(report, best, split) for split in SPLITS if split[1](best) is not None]
        sentences += _cost(report, best)
    return [*sentences, *_no_control(report), *_over_seeds(report), *_hint(report, best)]


def _best(report: RunReport) -> Measurement | None:
    """The best network with dendrites; the shipped one, if that is all the report says."""
    return report.best_grafted or (report.grafted if report.shipped == "grafted" else None)


def _control_wins(report: RunReport) -> list[str]:
    """Where more training alone does as well, on any part of the data or over the seeds."""
    measured = _compared(report)
    lost = [row for row in measured if row[2] >= row[1]]
    won = [name for name, ours, theirs in measured if ours > theirs] if lost else []
    found = pairs(report)
    if not lost and len(found) > 1:
        lost = [(f"{name} over {len(found)} seeds", o, t) for name, o, t in _seed_means(report) if t >= o]
    if not lost:
        return []
    words = [f"{_value(report, t)} on {name} against {_value(report, o)} with dendrites" for name, o, t in lost]
    but = f" (with dendrites it is better on {won[0]})" if won else ""
    return [f"More training alone does as well or better: {'; '.join(words)}{but}."]


def _compared(report: RunReport) -> list[tuple[str, float, float]]:
    """The best network with dendrites and the control, on each part of the data that both have."""
    best, control = _best(report), report.control
    if best is None or control is None:
        return []
    both = [(name, read(best), read(control)) for name, read in SPLITS]
    return [(name, ours, theirs) for name, ours, theirs in both if ours is not None and theirs is not None]


def _seed_means(report: RunReport) -> list[tuple[str, float, float]]:
    """Means of grafted and control over the seeds that have both, for each part of the data."""
    means = []
    for name, read in SPLITS:
        both = [(read(ours), read(theirs)) for ours, theirs in pairs(report)]
        known = [(ours, theirs) for ours, theirs in both if ours is not None and theirs is not None]
        if known:
            means.append((name, sum(o for o, _ in known) / len(known), sum(t for _, t in known) / len(known)))
    return means


def _ships_unchanged(report: RunReport) -> list[str]:
    if report.shipped != "given":
        return []
    best, margin = report.best_grafted, report.margin
    if best is None or margin is None:
        return ["No graft beat the model you gave; model.onnx is that model, unchanged."]
    gain = _step(report, best.validation - report.baseline.validation)
    return [
        "No graft surely beat the model you gave, so model.onnx is that model, unchanged: the best gains"
        f" {gain} on validation with a standard error of {_step(report, margin).removeprefix('+')}."
    ]


def _gain(report: RunReport, best: Measurement, split: Split) -> str:
    """The gain over the given model on one part of the data, split into training's and dendrites' own."""
    name, read = split
    ours, base = read(best), read(report.baseline)
    subject = "the shipped network" if report.shipped == "grafted" else "the best grafted network, which does not ship,"
    if ours is None or base is None:
        return f"On {name}, {subject} reaches {wording.metric_value(report.metric, ours)}."
    whole = f"On {name}, {subject} goes from {_value(report, base)} to {_value(report, ours)}"
    return f"{whole} ({_step(report, ours - base)}){_parts(report, ours, base, split)}."


def _parts(report: RunReport, ours: float, base: float, split: Split) -> str:
    control = None if report.control is None else split[1](report.control)
    if control is None:
        return ""
    trained, grown = _step(report, control - base), _step(report, ours - control)
    return f": {trained} from more training (control - baseline), {grown} from the dendrites (grafted - control)"


def _difference(report: RunReport, split: Split) -> float | None:
    """Control - baseline on one part of the data, where both are known."""
    base = split[1](report.baseline)
    control = None if report.control is None else split[1](report.control)
    return None if base is None or control is None else control - base


def _continued(report: RunReport, split: Split) -> str:
    return f"More training alone changes {split[0]} by {_step(report, _difference(report, split) or 0.0)}."


def _cost(report: RunReport, best: Measurement) -> list[str]:
    parameters, macs = best.parameters - report.baseline.parameters, best.macs - report.baseline.macs
    if parameters <= 0 and macs <= 0:
        return []
    share = wording.growth(best.parameters, report.baseline.parameters)
    more = wording.growth(best.macs, report.baseline.macs)
    first = f"{parameters:+,} parameters" + f" ({share})" * bool(share)
    second = f"{macs:+,} multiply-adds for one row" + f" ({more})" * bool(more)
    return [f"The price: {first} and {second}."]


def _no_control(report: RunReport) -> list[str]:
    if report.control is not None:
        return []
    return ["No control was run, so how much of this more training alone would give is not known."]


def _over_seeds(report: RunReport) -> list[str]:
    """Grafted - control over the seeds: the mean, its spread and how often it is positive."""
    found = pairs(report)
    sentences = []
    for name, read in SPLITS if len(found) > 1 else ():
        both = [(read(ours), read(theirs)) for ours, theirs in found]
        differences = [ours - theirs for ours, theirs in both if ours is not None and theirs is not None]
        if len(differences) > 1:
            mean, spread = mean_and_spread(differences)
            ahead = sum(difference > 0 for difference in differences)
            sentences.append(
                f"Over {len(differences)} seeds, grafted - control on {name} is"
                f" {wording.metric_difference(report.metric, mean, spread)}; the grafted network is ahead in {ahead}."
            )
    return [*_picked(report), *sentences]


def _picked(report: RunReport) -> list[str]:
    """The numbers above are one seed's; where it was the best of several, that flatters them."""
    if len(report.seeds) < 2:
        return []
    shown = shown_seed(report)
    values = {seed.seed: seed.grafted.validation for seed in report.seeds}
    if values.get(shown) != max(values.values()):
        return [f"The numbers so far are those of seed {shown}."]
    return [
        f"The numbers so far are those of seed {shown}, the best of {len(values)} on validation: that flatters them."
    ]


def _hint(report: RunReport, best: Measurement | None) -> list[str]:
    """One seed and a small difference prove nothing."""
    if len(report.seeds) > 1 or best is None:
        return []
    other = report.control or report.baseline
    pairs_of = [(read(best), read(other)) for _, read in SPLITS]
    gaps = [abs(a - b) for a, b in pairs_of if a is not None and b is not None]
    if not gaps or (min(gaps) >= SMALL and report.metric in ("accuracy", "r2")):
        return []
    return ["One seed is a hint, not a proof: differences this small also come by chance (--seeds N repeats the run)."]


def _value(report: RunReport, value: float) -> str:
    return wording.metric_value(report.metric, value)


def _step(report: RunReport, difference: float) -> str:
    return wording.metric_difference(report.metric, difference)
