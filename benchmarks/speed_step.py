"""How long one training step of a grafted model takes, against the same arithmetic in hand-written eager modules."""

from __future__ import annotations

import argparse
import logging
import time
import warnings
from collections.abc import Callable

import torch
from _ratio import compare, print_table
from networks import Convolution, Dendrites, Dense, Encoder, ResNet18
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import graftkit as gk
from graftkit.dendrites.branch import Branch
from graftkit.model import GraftedModel
from graftkit.plan import GraftPlan

AIM = 1.05
BATCH = 32
TOLERANCE = 1e-4
MODELS: dict[str, tuple[Callable[..., nn.Module], tuple[int, ...], int]] = {  # and pairs without any dendrite
    "ResNet-18, 3x32x32": (ResNet18, (3, 32, 32), 31),
    "encoder, 6 layers, 16x256": (lambda dendrites: Encoder(length=16, dendrites=dendrites), (16, 256), 21),
}


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--share", type=float, default=1.0, help="of the default number of pairs")
    arguments.add_argument("--device", default="cpu", help="cpu, by processor time, or cuda, by the wall clock")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    rows = []
    for name, (build, shape, pairs) in MODELS.items():
        pairs = max(5, round(given.share * pairs))
        rows += [_row(name, build, shape, count, pairs, torch.device(given.device)) for count in range(4)]
    header = ("model", "dendrites a site", "graftkit, ms", "by hand, ms", "ratio", "range", "pairs", "aim")
    print_table(header, rows, packages=["torch"])


def _row(
    name: str, build: Callable[..., nn.Module], shape: tuple[int, ...], count: int, pairs: int, device: torch.device
) -> str:
    torch.manual_seed(0)
    written = build(dendrites=count)
    inputs, targets = torch.randn(BATCH, *shape), torch.randint(0, 10, (BATCH,))
    inputs, targets, written = inputs.to(device), targets.to(device), written.to(device)
    grafted = _grafted(build(dendrites=0), inputs[:2], count, written)
    _check_same(grafted, written, inputs)
    steps = [_step(model.train(), inputs, targets) for model in (grafted, written)]
    for step in steps * 2:
        step()
    clock = time.process_time if device.type == "cpu" else _done
    found = compare(*steps, pairs=pairs, runs=1 if device.type == "cpu" else 10, clock=clock)
    return f"{name} | {count} | {found.cells(1e-3, 0)} | {pairs} | ≤ {AIM}"


def _grafted(plain: nn.Module, example: Tensor, count: int, written: nn.Module) -> GraftedModel:
    """The plain model with the hand-written one's weights, grafted at the default sites with its dendrites."""
    by_path = dict(written.named_modules())
    with torch.no_grad():
        own = written.state_dict()
        plain.load_state_dict({name: own[name].clone() for name in plain.state_dict()})
    traced = gk.trace(plain, example, device=str(example.device))
    cycle = gk.make_plan(traced, dendrites="full")
    grafted = gk.graft(traced, GraftPlan(cycle.grafts * count))
    for site in grafted.plan.sites():
        layer = by_path[site.rpartition(".")[0]]  # the site is its conv or linear
        assert isinstance(layer, Convolution | Dense) and layer.dendrites is not None
        _copy(layer.dendrites, grafted, site)
    return grafted


def _copy(written: Dendrites, grafted: GraftedModel, site: str) -> None:
    members = grafted.at(site).members()
    with torch.no_grad():
        for index, member in enumerate(members):
            assert isinstance(member, Branch)
            member.drive.load_state_dict(written.branches[index].state_dict())
            member.strength.copy_(written.strengths[index])
            for ours, theirs in zip(member.earlier, written.weights[index], strict=True):
                ours.copy_(theirs)


def _check_same(grafted: GraftedModel, written: nn.Module, inputs: Tensor) -> None:
    """Both modes, with the same dropout, and the same parameters to train; statistics move alike."""
    ours, theirs = (sum(p.numel() for p in model.parameters()) for model in (grafted, written))
    assert ours == theirs, f"{ours} parameters by graftkit, {theirs} by hand"
    for train in (False, True):
        outputs = []
        for model in (grafted.train(train), written.train(train)):
            torch.manual_seed(1)
            with torch.no_grad():
                outputs.append(model(inputs))
        difference = (outputs[0] - outputs[1]).abs().max().item()
        assert difference <= TOLERANCE, f"outputs differ by {difference:g}"


def _done() -> float:
    """The wall clock, once the GPU has done all that it was asked for."""
    torch.cuda.synchronize()
    return time.perf_counter()


def _step(model: nn.Module, inputs: Tensor, targets: Tensor) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        cross_entropy(model(inputs), targets).backward()
        optimizer.step()

    return step


if __name__ == "__main__":
    main()
