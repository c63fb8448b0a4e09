"""Several processes fit one model as one process would: by gradient, by correlation, on a budget, going on."""

from __future__ import annotations

import shutil
from collections import UserDict
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks_tools import spread
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset, default_collate
from torch.utils.data.distributed import DistributedSampler

from graftkit import api, ranks, surgery, tracing
from graftkit.contracts import Data, Observer
from graftkit.core.errors import DataError, RunError
from graftkit.core.records import EpochRecord
from graftkit.costs import parse_budget
from graftkit.fitting import FolderJournal, Settings, fit_model
from graftkit.planning import plan_cycle
from graftkit.rules import Correlation, Gradient
from graftkit.training import Checkpoints, Recipe

ROWS = 84


def part(seed: int, rows: int = ROWS) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(rows, 4, generator=generator, dtype=torch.float64)
    return TensorDataset(inputs, (inputs[:, 0] * inputs[:, 1] > 0).long())


def minus_loss(outputs: Tensor, targets: Tensor) -> float:
    return -float(cross_entropy(outputs, targets))


def collated(rows: list[tuple[Tensor, Tensor]]) -> tuple[UserDict[str, Any], Tensor]:
    """A batch as those of transformers are, with more in it than rows."""
    inputs, targets = default_collate(rows)
    return UserDict({"input": inputs, "nothing": None, "one": torch.tensor(1.0)}), targets


class Killed(BaseException):
    """All processes die here."""


def fitted(
    rank: int,
    world: int,
    *,
    rule: Any = None,
    budget: str | None = None,
    batch_size: int = 16,
    loader: str = "",
    norm: bool = False,
    dropout: float = 0.0,
    ignored: float = 0.0,
    broken: int = 0,
    seeds: int = 1,
    shrink: float = 1.0,
    die_at: int | None = None,
    folder: Path | None = None,
    rows: int = ROWS,
) -> dict[str, Any]:
    """What a fit leaves: weights, plan, and what was told."""
    torch.manual_seed(0 if rank == 0 else 99)  # where a model begins otherwise, the first process's is taken
    between = nn.BatchNorm1d(6) if norm else nn.Dropout(dropout)
    module = nn.Sequential(nn.Linear(4, 6), between, nn.Tanh(), nn.Linear(6, 2)).double()
    module.register_buffer("lowest", torch.full((3,), torch.finfo(torch.float64).min, dtype=torch.float64))
    module.register_buffer("spread", torch.zeros(1, 4).expand(5, 4))
    module.register_buffer("whole", torch.ones(2, dtype=torch.int16))
    wide = torch.zeros(6, 8, dtype=torch.float64)
    wide[:, ::2] = module[0].weight.detach()
    module[0].weight = nn.Parameter(wide[:, ::2])  # with gaps
    model = surgery.empty(tracing.trace_module(module, (part(1).tensors[0][:2],), name="net"))
    train: Any = part(1, rows)
    if ignored:
        away = torch.rand(rows, generator=torch.Generator().manual_seed(3)) < ignored
        train = TensorDataset(train.tensors[0], train.tensors[1].masked_fill(away, -100))
    if loader:
        order = torch.Generator().manual_seed(5) if loader == "ordered" else None
        named = collated if loader == "named" else None
        train = DataLoader(train, batch_size=batch_size, shuffle=True, generator=order, collate_fn=named)
    losses = 0

    def criterion(outputs: Tensor, targets: Tensor) -> Tensor:
        nonlocal losses
        losses += outputs.requires_grad
        return cross_entropy(outputs, targets) * (float("nan") if losses == broken and rank == world - 1 else 1.0)

    learned: list[EpochRecord] = []

    def on_epoch(record: EpochRecord, of: int) -> None:
        learned.append(record)
        if len(learned) == die_at:
            raise Killed

    rule = rule or Gradient()
    plan, _ = plan_cycle(model.traced, dendrites=() if budget else ("full",), rule=rule, every=budget is not None)
    recipe = Recipe(learning_rate=0.03, shrink=shrink)
    cycles = 1 if budget or seeds > 1 else 2
    settings = Settings(epochs=3, cycles=cycles, batch_size=batch_size, recipe=recipe, margin=0, seeds=seeds)
    found = fit_model(
        model,
        Data(train, part(2), part(3), "classes", 2, "made up"),
        plan,
        rule,
        criterion,
        minus_loss,
        settings,
        Observer(on_epoch=on_epoch),
        budget=parse_budget(budget) if budget else None,
        journal=FolderJournal(folder, print, always=True) if folder else None,
    )
    return {
        "state": {name: tensor.clone() for name, tensor in model.state_dict().items()},
        "plan": model.plan.to_json(),
        "phases": [asdict(phase) for phase in found.phases],
        "epochs": [asdict(epoch) for epoch in learned],
        "worth": [] if found.spending is None else [value.worth for value in found.spending.values],
    }


def begun(folder: Path, rank: int, world: int) -> None:
    """All processes die in the second phase."""
    with pytest.raises(Killed):
        fitted(rank, world, die_at=5, folder=folder)


def resumed(rank: int, world: int) -> dict[str, Any]:
    """All processes die in the second phase, and go on from what the first one wrote; no other one writes."""
    folder = Path(f"progress-{world}")
    if world == 1:
        shutil.rmtree(folder, ignore_errors=True)
    if rank:
        Checkpoints.write = None  # type: ignore[assignment,method-assign]
    begun(folder, rank, world)
    return fitted(rank, world, folder=folder)


CASES: dict[str, Any] = {
    "gradient": fitted,
    "uneven": partial(fitted, batch_size=27),  # shares of 13 and 14 rows, and a last batch of three, which all take
    "loader": partial(fitted, loader="ordered"),
    "named": partial(fitted, loader="named", seeds=2),
    "ignored": partial(fitted, ignored=0.6, batch_size=8),
    "broken": partial(fitted, broken=4, shrink=0.7),
    "frozen": partial(fitted, rule=Gradient(freeze=True)),
    "correlation": partial(fitted, rule=Correlation(pool=2, false_positives=0.5, batch=40, rows=250), rows=400),
    "budget": partial(fitted, budget="parameters=+60%"),
    "resumed": resumed,
}


def near(one: Any, other: Any) -> bool:
    """Whether two values are the same, numbers to 1e-5."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(near(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(near, one, other))
    if isinstance(one, Tensor):
        return torch.allclose(one, other, rtol=1e-5, atol=1e-7)
    if isinstance(one, float):
        return one == pytest.approx(other, rel=1e-5, abs=1e-7)
    return bool(one == other)


def dropped(rank: int, world: int) -> dict[str, Any]:
    """With dropout, which draws as much as a share is large, and a loader that draws its order from there."""
    return fitted(rank, world, dropout=0.2, loader="drawn", batch_size=27)


def refusals(rank: int, world: int) -> list[str]:
    """What is wrong with the data of several processes."""
    found = []
    for rows in (part(rank + 5), DataLoader(part(1), sampler=DistributedSampler(part(1), world, rank))):
        model = surgery.empty(
            tracing.trace_module(
                nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)).double(), (part(1).tensors[0][:2],), name="net"
            )
        )
        with pytest.raises(DataError) as caught:
            api.fit(model, Data(rows, part(2), None, "classes", 2, "made up"), epochs=1)
        found.append(str(caught.value))
    return found


def first_fails(rank: int, world: int) -> str:
    """An error of the first process is one of all."""
    with pytest.raises(RunError) as caught:
        ranks.told(partial(fail, rank))
    return str(caught.value)


def fail(rank: int) -> None:
    raise RunError(f"process {rank} failed")


def normed(rank: int, world: int) -> dict[str, Any]:
    """A network with batch norm, whose statistics are those of a share: all have the same, if not what one has."""
    return fitted(rank, world, norm=True)


def added(rank: int, world: int) -> list[Any]:
    """Sums and their gradients over processes."""
    own = torch.full((2,), float(rank + 1), requires_grad=True)
    (ranks.added(own) * torch.tensor([1.0, 10.0])).sum().backward()
    part, mean, rows = ranks.weighed(torch.tensor(float(rank)), 3 - rank)
    told = ranks.told(lambda: f"from {rank}")
    return [own.grad, float(part), mean, rows, told, ranks.total(float(rank), torch.device("cpu"))]


MORE: dict[str, Any] = {
    "normed": normed, "added": added, "dropped": dropped, "refusals": refusals, "first_fails": first_fails,
}  # fmt: skip


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """What two processes found in every case."""
    return spread({**CASES, **MORE}, 2, tmp_path_factory.mktemp("two"))


def same_as_one(case: str, found: list[dict[str, Any]]) -> None:
    alone = CASES[case](0, 1)
    assert alone["plan"]["grafts"] or case == "ignored"  # in which too few labels are left
    assert alone["epochs"]
    for rank, own in enumerate(found):
        for key in alone:
            assert near(alone[key], own[key]), (case, rank, key)


@pytest.mark.parametrize("case", CASES)
def test_two_processes_fit_what_one_fits(
    case: str, two: dict[str, list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    same_as_one(case, two[case])


def test_what_one_process_began_two_go_on_with(tmp_path: Path) -> None:
    begun(tmp_path / "begun", 0, 1)
    goes_on = partial(fitted, folder=tmp_path / "begun")
    for found in spread({"goes_on": goes_on}, 2, tmp_path)["goes_on"]:
        assert near(fitted(0, 1), found)
    spread({"begun": partial(begun, tmp_path / "two")}, 2, tmp_path)
    assert near(fitted(0, 1), fitted(0, 1, folder=tmp_path / "two"))


def test_four_processes_fit_what_one_fits(tmp_path: Path) -> None:
    cases = ("gradient", "uneven", "correlation")
    for case, found in spread({case: CASES[case] for case in cases}, 4, tmp_path).items():
        same_as_one(case, found)


@pytest.mark.parametrize("case", ["normed", "dropped"])
def test_with_batch_norm_or_dropout_all_have_the_same(case: str, two: dict[str, list[Any]]) -> None:
    first, second = two[case]
    assert all(torch.equal(tensor, second["state"][name]) for name, tensor in first["state"].items())
    assert first["epochs"] == second["epochs"] and len(first["epochs"]) == 12


def test_what_is_wrong_is_told_in_all(two: dict[str, list[Any]]) -> None:
    for data, sampler in two["refusals"]:
        assert "were given different data" in data and "has a DistributedSampler; leave it out" in sampler
    assert two["first_fails"] == ["process 0 failed"] * 2


def test_what_processes_add_up(two: dict[str, list[Any]]) -> None:
    first, second = two["added"]
    assert torch.equal(first[0], torch.tensor([1.0, 10.0])) and torch.equal(second[0], first[0])
    assert first[1] + second[1] == pytest.approx(0.4) == pytest.approx(first[2]) and first[3] == 5
    assert second[4] == first[4] == "from 0" and first[5] == 1.0
    assert ranks.weighed(torch.tensor(2.0), 7)[1:] == (2.0, 7) and ranks.told(lambda: 3) == 3
