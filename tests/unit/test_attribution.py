"""What a dendrite is worth: shares that add up, noise that is told apart, and a model left as it was."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from graftkit import surgery, tracing
from graftkit.core.errors import TrainingError
from graftkit.dendrites import build_dendrite
from graftkit.model import GraftedModel
from graftkit.plan import Graft
from graftkit.training import attribute

GRAFTS = (
    Graft("first", "lowrank", (("rank", 1),)),
    Graft("first", "context", (("mode", "gate"), ("units", 2))),
    Graft("second", "full", neurons=(1, 3)),
)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(2, 5, 3, padding=1)
        self.norm = nn.BatchNorm1d(5)
        self.second = nn.Linear(5, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.norm(self.first(x))).mean(2)
        return self.head(torch.tanh(self.second(hidden)))


def batches(count: int = 6, size: int = 16) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(size, 2, 7, generator=generator), torch.randint(0, 3, (size,), generator=generator))
        for _ in range(count)
    ]


@pytest.fixture
def model() -> GraftedModel:
    torch.manual_seed(0)
    made = surgery.empty(tracing.trace_module(Net(), (torch.randn(2, 2, 7),), name="net"))
    surgery.graft(made, GRAFTS, build_dendrite, seed=0)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in made.dendrites.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    return made


def loss(model: GraftedModel, rows: list[tuple[Tensor, Tensor]]) -> float:
    model.eval()
    with torch.no_grad():
        return float(torch.stack([functional.cross_entropy(model(x), y) for x, y in rows]).mean())


def test_the_shares_add_up_to_what_all_dendrites_do_together(model: GraftedModel) -> None:
    rows = batches()
    found = attribute(model, rows, functional.cross_entropy, steps=64)
    with_them = loss(model, rows)
    for site in model.plan.sites():
        model.silence(site)
    assert sum(float(one.mean.sum()) for one in found) == pytest.approx(loss(model, rows) - with_them, abs=2e-5)


def test_it_is_the_plans_order_and_neurons_not_served_have_nothing(model: GraftedModel) -> None:
    found = attribute(model, batches(), functional.cross_entropy)
    assert [one.graft for one in found] == list(GRAFTS)
    assert [len(one.mean) for one in found] == [5, 5, 4]
    assert found[2].mean[[0, 2]].tolist() == found[2].error[[0, 2]].tolist() == [0, 0]
    assert all(one.mean[n] != 0 for one in found[:2] for n in range(5)) and (found[2].mean[[1, 3]] != 0).all()


def test_those_that_were_there_before_stay_as_they_are(model: GraftedModel) -> None:
    rows = batches()
    found = attribute(model, rows, functional.cross_entropy, first=2, steps=64)
    assert [one.graft for one in found] == list(GRAFTS[2:])
    with_them = loss(model, rows)
    model.silence("second")
    assert float(found[0].mean.sum()) == pytest.approx(loss(model, rows) - with_them, abs=2e-5)


def test_the_model_is_left_as_it_was(model: GraftedModel) -> None:
    model.train()
    before = model.snapshot()
    attribute(model, batches(), functional.cross_entropy)
    assert model.training and all(p.grad is None for p in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_dendrite_that_says_what_the_labels_say_is_worth_most(model: GraftedModel) -> None:
    """One neuron's dendrite is taught; it has to come out above its own error, and first."""
    rows = batches(12)
    inputs = [(x, (x[:, 0].mean(1) > 0).long()) for x, _ in rows]
    surgery.truncate(model, replace(model.plan, grafts=()))
    surgery.graft(model, [Graft("first", "full")], build_dendrite, seed=0)
    (dendrite,) = model.at("first").members()
    mask = torch.zeros_like(dendrite.strengths()[0])
    mask[2] = 1
    optimizer = torch.optim.Adam(dendrite.parameters(), lr=0.05)
    for _ in range(30):
        total = sum((functional.cross_entropy(model.eval()(x), y) for x, y in inputs), torch.zeros(()))
        optimizer.zero_grad()
        total.backward()
        dendrite.strengths()[0].grad.mul_(mask)  # type: ignore[union-attr]
        optimizer.step()
    (found,) = attribute(model, inputs, functional.cross_entropy)
    assert int(found.mean.argmax()) == 2 and found.mean[2] > 3 * found.error[2] > 0
    assert found.mean[[0, 1, 3, 4]].abs().max() == 0


def test_one_batch_says_nothing_of_its_error(model: GraftedModel) -> None:
    found = attribute(model, batches(1), functional.cross_entropy)
    assert all(torch.isinf(one.error[list(one.graft.neurons or range(5))]).all() for one in found)


def test_a_batch_whose_labels_are_all_ignored_is_passed_over(model: GraftedModel) -> None:
    rows = batches(6)
    ignored = (rows[0][0], torch.full((16,), -100))
    for one, other in zip(
        attribute(model, [ignored, *rows], functional.cross_entropy),
        attribute(model, rows, functional.cross_entropy),
        strict=True,
    ):
        assert torch.equal(one.mean, other.mean) and torch.equal(one.error, other.error)
    with pytest.raises(TrainingError, match="nothing can be valued"):
        attribute(model, [ignored], functional.cross_entropy)
