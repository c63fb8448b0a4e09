"""Which epoch to keep: the test accuracy of what several rules choose by validation, from other benchmarks' scores."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from _arms import mean_se, shown

Scores = Sequence[float]


def first_best(validation: Scores) -> int:
    """The first of the best validated epochs."""
    return max(range(len(validation)), key=lambda epoch: (validation[epoch], -epoch))


def latest_best(validation: Scores, share: float = 1.0) -> int:
    """The latest of the best validated among the last share of the epochs."""
    count = len(validation)
    kept = [epoch for epoch in range(count) if epoch + 1 > count * (1 - share) or epoch == count - 1]
    return max(kept, key=lambda epoch: (validation[epoch], epoch))


RULES: Mapping[str, Callable[[Scores], int]] = {
    "best validated, the first of equal ones": first_best,
    "best validated, the latest of equal ones": latest_best,
    "the latest best of the last half": lambda v: latest_best(v, 0.5),
    "the latest best of the last quarter": lambda v: latest_best(v, 0.25),
    "the last epoch": lambda v: len(v) - 1,
}


def table(raw: Mapping[str, Mapping[str, Sequence[Mapping[str, Scores]]]], skip: str) -> str:
    """A row a rule: mean test accuracy, and the difference to the first rule, paired by seed."""
    lines = ["| | " + " | ".join(raw) + " |", "| --- |" + " --- |" * len(raw)]
    for name, rule in RULES.items():
        cells = []
        for rows in raw.values():
            arms = [arms for row, arms in rows.items() if not row.startswith(skip)]
            seeds = min(map(len, arms))
            per_seed = [
                [100 * arm[seed]["test"][rule(arm[seed]["validation"])] for arm in arms] for seed in range(seeds)
            ]
            first = [
                [100 * arm[seed]["test"][first_best(arm[seed]["validation"])] for arm in arms] for seed in range(seeds)
            ]
            means = [sum(own) / len(own) for own in per_seed]
            gains = [sum(own) / len(own) - sum(base) / len(base) for own, base in zip(per_seed, first, strict=True)]
            gain = f" ({shown(gains, sign=True)})" if rule is not first_best else ""
            cells.append(f"{mean_se(means)[0]:.2f}{gain}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Read what `--raw` of another benchmark wrote, and print the table."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("raw", type=Path, nargs="+")
    made.add_argument("--skip", default="plain", help="rows of another training, by how they begin")
    options = made.parse_args()
    found: dict[str, Mapping[str, Sequence[Mapping[str, Scores]]]] = {}
    for path in options.raw:
        found |= json.loads(path.read_text())
    print(table(found, options.skip))


if __name__ == "__main__":
    main()
