"""How sure a gain is: the jackknife's error against what is known to be right."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from graftkit.fitting import evidence
from graftkit.fitting.evidence import difference_error
from graftkit.training import accuracy, find_metric

R2 = find_metric("r2")


def answers(right: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs of two classes that are right where it says so."""
    targets = torch.arange(len(right)) % 2
    chosen = torch.where(right, targets, 1 - targets)
    return torch.nn.functional.one_hot(chosen, 2).float(), targets


def test_for_accuracy_it_is_the_error_of_the_mean_of_paired_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    ours, theirs = (torch.rand(1000, generator=generator) < p for p in (0.9, 0.8))
    difference = ours.double() - theirs.double()
    expected = float(difference.std() / math.sqrt(1000))
    assert difference_error(accuracy, answers(ours), answers(theirs)) == pytest.approx(expected, rel=1e-9)


def test_many_rows_are_left_out_in_groups() -> None:
    generator = torch.Generator().manual_seed(0)
    ours, theirs = (torch.rand(20_000, generator=generator) < p for p in (0.9, 0.8))
    expected = float((ours.double() - theirs.double()).std() / math.sqrt(20_000))
    assert difference_error(accuracy, answers(ours), answers(theirs)) == pytest.approx(expected, rel=0.25)


def test_one_more_row_that_is_right_gains_its_own_error() -> None:
    theirs = torch.ones(360).bool()
    theirs[7] = False
    assert difference_error(accuracy, answers(torch.ones(360).bool()), answers(theirs)) == pytest.approx(1 / 360)


def test_few_rows_are_left_out_one_by_one() -> None:
    ours, theirs = torch.tensor([1, 1, 1, 0, 1]).bool(), torch.tensor([1, 0, 1, 0, 0]).bool()
    difference = ours.double() - theirs.double()
    expected = float(difference.std() / math.sqrt(5))
    assert difference_error(accuracy, answers(ours), answers(theirs)) == pytest.approx(expected)


def test_the_same_answers_differ_by_nothing_for_sure() -> None:
    same = answers(torch.rand(90) < 0.7)
    assert difference_error(accuracy, same, same) == 0


def test_rows_in_another_order_are_not_paired() -> None:
    ours = answers(torch.rand(400, generator=torch.Generator().manual_seed(0)) < 0.8)
    order = torch.randperm(400, generator=torch.Generator().manual_seed(1))
    shuffled = (ours[0][order], ours[1][order])
    expected = math.sqrt(2 * 0.8 * 0.2 / 400)
    assert difference_error(accuracy, ours, shuffled) == pytest.approx(expected, rel=0.3)


def test_another_metric() -> None:
    generator = torch.Generator().manual_seed(0)
    targets = torch.randn(500, 1, generator=generator)
    first, second = (targets + s * torch.randn(500, 1, generator=generator) for s in (0.3, 0.5))
    error = difference_error(R2, (first, targets), (second, targets))
    assert 0.005 < error < 0.03 < R2(first, targets) - R2(second, targets)


def test_one_row_says_nothing() -> None:
    one = answers(torch.tensor([True]))
    assert difference_error(accuracy, one, one) is None


@pytest.mark.parametrize("rows", [1001, 3333, 20_000])
@pytest.mark.parametrize("at", [0, -1])
def test_one_more_row_is_no_gain_among_many_either(rows: int, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "_MOST", 10**5)
    theirs = torch.ones(rows).bool()
    theirs[at] = False
    error = difference_error(accuracy, answers(torch.ones(rows).bool()), answers(theirs))
    assert 1 / rows <= error < 1.1 / rows


@pytest.mark.parametrize("raises", [True, False])
def test_a_metric_that_needs_some_rows_has_no_error(raises: bool) -> None:
    def metric(outputs: Tensor, targets: Tensor) -> float:
        if not targets.bool().any() and raises:
            raise ValueError("only one class")
        return float((outputs.argmax(1) == targets)[targets.bool()].double().mean())

    one = (torch.eye(5)[:, :2], torch.tensor([0, 1, 0, 0, 0]))
    assert difference_error(metric, one, one) is None


def test_another_number_of_rows_says_nothing() -> None:
    assert difference_error(accuracy, answers(torch.ones(9).bool()), answers(torch.ones(8).bool())) is None
