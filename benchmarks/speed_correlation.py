"""How much sooner candidates of the correlation rule have learned for showing each row to the network only once."""

from __future__ import annotations

import argparse
import logging
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median

import torch
from _ratio import print_table
from networks import Convolution, ResNet18
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import graftkit as gk
from graftkit import surgery
from graftkit.dendrites import build_dendrite, make_kind, options_of
from graftkit.model import GraftedModel
from graftkit.plan import Graft, GraftPlan
from graftkit.rules.candidates import CandidatePool, Study

ROWS, EPOCHS = 64, 40
EVERY = 10**9
STUDY = Study(size=1, rows=EVERY, positions=16, batch=ROWS, memory=10**10, false_positives=0.05)
KINDS: tuple[tuple[str, int, str], ...] = (  # at least so many times sooner
    ("pointwise", 0, "5"), ("lowrank", 0, "5"), ("context", 0, "5"), ("full", 2, "5"), ("full", 0, "1.6"),
)  # fmt: skip


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--pairs", type=int, default=5)
    pairs = arguments.parse_args().pairs
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.manual_seed(0)
    network = ResNet18()
    network.stem, network.pool = Convolution(3, 64, 3, 1, 0), nn.Identity()  # as it is for pictures of 32x32
    batch = (torch.randn(ROWS, 3, 32, 32), torch.randint(0, 10, (ROWS,)))
    model = surgery.empty(gk.trace(network, batch[0][:2]))
    sites = [site.key for site in model.traced.sites if not site.is_linear]
    rows = []
    for kind, only, aim in KINDS:
        chosen = sites[len(sites) // 2 :][:only] if only else sites
        for size in (1, 4):
            rows.append(_row(model, batch, kind, chosen, size, pairs, aim))
    header = ("kind", "sites", "candidates each", "every row again, s", "shown, s", "kept, s", "kept, MB a row",
              f"sooner in {EPOCHS} epochs", "range", "aim")  # fmt: skip
    print_table(header, rows, packages=["torch"])


def _row(
    model: GraftedModel, batch: tuple[Tensor, Tensor], kind: str, sites: Sequence[str], size: int, pairs: int, aim: str
) -> str:
    options = options_of(make_kind(kind, {}))
    grafts = [Graft(site, kind, options, detach=True) for site in sites]
    again, once = (
        CandidatePool(
            model, grafts, build_dendrite, cross_entropy, replace(STUDY, size=size, positions=positions), seed=0
        )
        for positions in (EVERY, STUDY.positions)
    )
    inputs, targets = (batch[0],), batch[1]
    step_again, step_once = _step(again), _step(once)
    once.watch(inputs, targets)
    times: list[tuple[float, float, float]] = []
    for pair in range(pairs + 1):  # the first one is warm-up
        spent = (
            _seconds(lambda: step_again(again.loss([again.lessons(inputs, targets)]))),
            _seconds(lambda: once.lessons(inputs, targets)),
            _seconds(lambda: [step_once(loss) for loss in once.losses()]),
        )
        times += [spent] if pair else []
    held = once._cache.held / ROWS / 1e6
    for pool in (again, once):
        pool.close()
    surgery.truncate(model, GraftPlan())
    ratios = [uncached * EPOCHS / (shown + kept * EPOCHS) for uncached, shown, kept in times]
    uncached, shown, kept = (median(column) for column in zip(*times, strict=True))
    seconds = f"{uncached:.2f} | {shown:.2f} | {kept:.3f}"
    sooner = f"**{median(ratios):.1f}** | {min(ratios):.1f} – {max(ratios):.1f}"
    return f"{kind} | {len(sites)} | {size} | {seconds} | {held:.2f} | {sooner} | ≥ {aim}"


def _step(pool: CandidatePool) -> Callable[[Tensor], None]:
    optimizer = torch.optim.AdamW(pool.parameters(), lr=1e-3)

    def step(loss: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def _seconds(call: Callable[[], object]) -> float:
    started = time.process_time()
    call()
    return time.process_time() - started


if __name__ == "__main__":
    main()
