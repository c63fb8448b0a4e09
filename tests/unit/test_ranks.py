"""Several processes that grow one model: the same decisions, and the same numbers as one process."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from ranks_tools import spread
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

import graftkit as gk
from graftkit.core.errors import TrainingError

ROWS = 32
Said = tuple[dict[str, Tensor], list[object]]  # a state, and what `step` said


def rows() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(ROWS, 4, generator=generator, dtype=torch.float64)
    return inputs, (inputs[:, 0] * inputs[:, 1] > 0).long()


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)).double()


def grown(
    rank: int,
    world: int,
    *,
    accumulate: int = 1,
    stop: int | None = None,
    folder: Path | None = None,
    fabric: Fabric | None = None,
) -> Said:
    """Train and grow on this process's share of each batch; the state in the end and what `step` said."""
    inputs, targets = rows()
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
    grower = gk.Grower(model, inputs[:2], optimizer, schedule="rounds:epochs=2,dendrites=2", dendrites="full")
    trained: nn.Module = grower.model
    stepped: Any = optimizer
    if fabric is not None:
        trained, stepped = fabric.setup(grower.model, optimizer)
    elif world > 1:
        trained = DistributedDataParallel(grower.model)
    backward = Tensor.backward if fabric is None else fabric.backward
    said: list[object] = []
    torch.manual_seed(rank)
    begin = 0 if folder is None else grower.resume(folder)
    for epoch in range(begin, 99):
        if grower.finished or epoch == stop:
            break
        grower.model.train()
        for batch in torch.arange(ROWS).split(16):
            own = batch[rank::world]
            stepped.zero_grad()
            for part in own.split(len(own) // accumulate):
                backward(cross_entropy(trained(inputs[part]), targets[part]) / accumulate)
            stepped.step()
        # each process validates rows of its own, as a DistributedSampler would have it
        with torch.no_grad():
            score = -float(cross_entropy(grower.model.eval()(inputs[rank::world]), targets[rank::world]))
        said.append(grower.step(score))
        torch.rand(1)  # each process draws on from its own
        if folder is not None:
            grower.save(folder, epochs=epoch + 1)
    return {name: tensor.clone() for name, tensor in grower.model.state_dict().items()}, said


def resumed(rank: int, world: int) -> Said:
    """The same, but the process dies after five epochs and goes on from what the first one wrote."""
    folder = Path(f"resumed-{world}")
    first, _ = grown(rank, world, stop=5, folder=folder)
    del first
    torch.manual_seed(99)
    state, said = grown(rank, world, folder=folder)
    return state, [*said, torch.rand(2).tolist()]


def refused(rank: int, world: int) -> Said:
    """One process alone finds a NaN: all go back, and later all give up."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    grower = gk.Grower(model, rows()[0][:2], optimizer, schedule="rounds:epochs=5")
    grower.step(0.5)
    if rank == 1:
        with torch.no_grad():
            model[0].weight[0, 0] = math.inf  # type: ignore[union-attr,operator]
    first = grower.step(0.6)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.03)
    with pytest.raises(TrainingError, match=r"again.*best state \(validation 0\.5\)"):
        grower.step(math.nan if rank == 0 else 0.6)
    return {}, [first, grower.finished]


def accumulated(rank: int, world: int) -> Said:
    """With two halves of each batch, one after the other."""
    return grown(rank, world, accumulate=2)


def in_fabric(rank: int, world: int) -> Said:
    """With Lightning Fabric, as torchrun would start it."""
    told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "GROUP_RANK": 0}
    os.environ.update({name: str(value) for name, value in told.items()}, TORCHELASTIC_RUN_ID="one")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="1")  # nobody asks there: the group is there already
    fabric = Fabric(accelerator="cpu", devices=world, strategy="ddp", precision="64-true")
    fabric.launch()
    return grown(rank, world, fabric=fabric)


TASKS: dict[str, Callable[[int, int], Said]] = {
    "whole": grown,
    "accumulated": accumulated,
    "refused": refused,
    "resumed": resumed,
    "fabric": in_fabric,
}


@pytest.mark.parametrize(("world", "tasks"), [(2, [*TASKS]), (4, ["whole"])])
def test_several_processes_give_what_one_gives(world: int, tasks: list[str], tmp_path: Path) -> None:
    alone, said = grown(0, 1)
    assert any("dendrites" in name for name in alone)
    found = spread({task: TASKS[task] for task in tasks}, world, tmp_path)
    for task, rank in [(task, rank) for task in tasks if task != "refused" for rank in range(world)]:
        state, told = found[task][rank]
        if task == "resumed":
            torch.manual_seed(rank)
            drawn = [torch.rand(1) for _ in range(len(said))]
            assert drawn and told.pop() == torch.rand(2).tolist()
            assert told == said[5:]
        else:
            assert told == said
        assert state.keys() == alone.keys()
        for name, tensor in alone.items():
            torch.testing.assert_close(state[name], tensor, rtol=1e-5, atol=1e-7, msg=name)
    if "refused" in tasks:
        first, second = found["refused"]
        assert first == second and first[1][1] is True
