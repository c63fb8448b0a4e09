"""Fits the four sample models with the defaults, several seeds each, beside their controls."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import numpy as np
import torch
from _arms import heading, markdown, shown

from graftkit.api import fit, load, load_data, trace
from graftkit.contracts import Data, Observer
from graftkit.core.records import EpochRecord, PhaseRecord, SeedRecord
from graftkit.fitting import FitResult

NAMES = ("cnn", "mlp", "vit", "gru")
HEADINGS = (
    "",
    "parameters",
    "as given",
    "control",
    "with dendrites",
    "what ships",
    "dendrites − control",
    "ships − control",
    "ships dendrites",
)


def watching(name: str) -> Observer:
    """Lines on stderr, one a phase."""

    def tell(record: PhaseRecord) -> None:
        line = f"{name}  seed {record.seed}  {record.arm} {record.cycle}: validation {record.validation}"
        print(line, file=sys.stderr)

    def quiet(record: EpochRecord, of: int) -> None:
        pass

    return Observer(on_epoch=quiet, on_phase=tell)


def measure(path: Path, rows: Data, options: argparse.Namespace) -> FitResult:
    """One sample model, every seed."""
    traced = trace(load(path, trust=True), rows.example())
    given: dict[str, float | int] = {}
    given |= {"epochs": options.epochs} if options.epochs else {}
    given |= {"learning_rate": options.learning_rate} if options.learning_rate else {}
    return fit(traced, rows, seeds=options.seeds, observer=watching(path.stem), **given)  # type: ignore[arg-type]


def row(name: str, result: FitResult) -> list[str]:
    """Test accuracy in percent, mean ± standard deviation over seeds; differences ± standard error."""
    given = 100 * test(result.baseline.test)
    grafted = [100 * test(seed.grafted.test) for seed in result.seeds]
    control = [100 * test(seed.control.test if seed.control else None) for seed in result.seeds]
    ships = [value if seed.shipped == "grafted" else given for value, seed in zip(grafted, result.seeds, strict=True)]
    return [
        name,
        f"{result.baseline.parameters:,} → {sizes(result.seeds)}",
        f"{given:.2f}",
        *(spread(values) for values in (control, grafted, ships)),
        *(shown(np.subtract(values, control).tolist(), sign=True) for values in (grafted, ships)),
        f"{sum(seed.shipped == 'grafted' for seed in result.seeds)} of {len(result.seeds)}",
    ]


def test(value: float | None) -> float:
    """A test score; not a number where there is none."""
    return math.nan if value is None else value


def sizes(seeds: tuple[SeedRecord, ...]) -> str:
    """How many parameters the grafted models have."""
    found = sorted({seed.grafted.parameters for seed in seeds})
    return f"{found[0]:,}" if len(found) == 1 else f"{found[0]:,} to {found[-1]:,}"


def spread(values: list[float]) -> str:
    """`mean ± standard deviation`."""
    return f"{np.mean(values):.2f} ± {np.std(values, ddof=1) if len(values) > 1 else math.nan:.2f}"


def main() -> None:
    """Run and print one table."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--seeds", type=int, default=5)
    made.add_argument("--epochs", type=int, help="epochs of each phase; graftkit's default where it is not given")
    made.add_argument("--learning-rate", type=float, help="graftkit's default where it is not given")
    made.add_argument("--data", default="digits")
    made.add_argument("--names", nargs="*", default=NAMES, help="only these models")
    made.add_argument("--models", type=Path, default=Path(__file__).parents[1] / "sample_models")
    made.add_argument("--out", type=Path, help="Markdown file to write")
    options = made.parse_args()
    torch.set_num_threads(1)
    rows = load_data(options.data)
    lines = []
    for name in options.names:
        path = options.models / f"{name}.pt"
        if path.is_file():
            lines.append(row(name, measure(path, rows, options)))
        else:
            print(f"{name}.pt is not there", file=sys.stderr)
    note = "Differences are paired by seed, ± standard error; the scores have ± standard deviation over seeds."
    text = "\n\n".join([heading(options, options.seeds), note, markdown(HEADINGS, lines)])
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
