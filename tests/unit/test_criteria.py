"""Losses and metrics by name, and rows that do not fit the model."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from graftkit import api, surgery, tracing
from graftkit.contracts import Data
from graftkit.core.errors import DataError
from graftkit.training import check_fit, find_loss, find_metric
from graftkit.training.criteria import DEFAULT_LOSS, DEFAULT_METRIC, LOSSES, METRICS, accuracy, usual_metric


def test_defaults_are_in_the_tables() -> None:
    assert set(DEFAULT_LOSS) == set(DEFAULT_METRIC) == {"classes", "values"}
    assert set(DEFAULT_LOSS.values()) <= set(LOSSES) and set(DEFAULT_METRIC.values()) <= set(METRICS)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.integers(0, 99))
def test_accuracy_is_the_share_of_hits(targets: list[int], seed: int) -> None:
    outputs = torch.randn(len(targets), 4, generator=torch.Generator().manual_seed(seed))
    hits = sum(int(np.argmax(row)) == target for row, target in zip(outputs.tolist(), targets, strict=True))
    assert find_metric("accuracy")(outputs, torch.tensor(targets)) == pytest.approx(hits / len(targets))


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
@pytest.mark.parametrize("wanted", [(4,), (4, 1)])
def test_accuracy_of_one_output_is_its_sign(shape: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    outputs = torch.tensor([-1.0, 2.0, 0.5, -3.0]).reshape(shape)
    targets = torch.tensor([0, 1, 0, 0]).reshape(wanted)
    assert find_metric("accuracy")(outputs, targets) == 0.75
    assert find_metric("accuracy")(outputs, targets.float()) == 0.75


@given(st.lists(st.floats(-5, 5), min_size=3, max_size=20), st.integers(0, 9))
def test_r2_by_hand(values: list[float], seed: int) -> None:
    targets = torch.tensor(values) + torch.arange(len(values))
    outputs = targets + torch.randn(len(values), generator=torch.Generator().manual_seed(seed))
    y, f = targets.double().numpy(), outputs.double().numpy()
    expected = 1 - ((y - f) ** 2).sum() / max(((y - y.mean()) ** 2).sum(), 1e-12)
    found = find_metric("r2")(outputs.unsqueeze(1), targets.unsqueeze(1))
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert find_metric("r2")(targets.unsqueeze(1), targets.unsqueeze(1)) == 1


def test_higher_is_better_everywhere() -> None:
    targets = torch.randn(20, 2)
    near, far = targets + 0.1, targets + 1
    for name in ("r2", "negative_mse"):
        assert find_metric(name)(near, targets) > find_metric(name)(far, targets)
    assert find_metric("negative_mse")(far, targets) == pytest.approx(-1, rel=1e-5)


def test_labels_of_yes_and_no_are_measured_by_how_often_they_are_right() -> None:
    assert usual_metric("bce", "values") == "accuracy" and usual_metric("bce", "classes") == "accuracy"
    assert usual_metric("mse", "values") == "r2" and usual_metric("cross_entropy", "classes") == "accuracy"
    scores, soft = torch.tensor([[2.0, -1.0], [0.5, 3.0]]), torch.tensor([[0.9, 0.1], [0.2, 1.0]])
    assert accuracy(scores, soft) == 0.75
    masks = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])  # one channel of scores, no channel of labels
    assert accuracy((masks - 0.5).unsqueeze(1), masks) == 1 and accuracy((masks - 0.5).unsqueeze(-1), masks) == 1
    assert accuracy(torch.ones(3, 1), torch.tensor([1, 0, -100])) == 0.5
    assert accuracy(torch.full((10,), 3.0), torch.arange(10)) == pytest.approx(0.1)  # labels that are no yes or no


def test_losses() -> None:
    outputs, targets = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    assert torch.equal(find_loss("cross_entropy")(outputs, targets), functional.cross_entropy(outputs, targets))
    single = torch.randn(6, 1)
    expected = functional.binary_cross_entropy_with_logits(single, (targets > 0).float().unsqueeze(1))
    assert torch.equal(find_loss("bce")(single, (targets > 0).long()), expected)
    assert find_loss("l1")(outputs, outputs + 2) == pytest.approx(2)
    assert float(find_loss("torch.nn:SmoothL1Loss")(outputs, outputs)) == 0
    assert find_loss("torch.nn.functional:mse_loss") is functional.mse_loss
    assert find_metric("math:fsum") is math.fsum


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cros_entropy", "unknown loss 'cros_entropy'; there are.*Did you mean cross_entropy"),
        ("no_such_package:loss", "cannot be imported: ModuleNotFoundError: No module named"),
        ("torch.nn:NoLoss", "cannot be imported"),
        (":loss", "cannot be imported"),
    ],
)
def test_unknown_names_are_refused_in_one_line(name: str, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        find_loss(name)
    assert "\n" not in str(caught.value)


def test_unknown_metric() -> None:
    with pytest.raises(DataError, match=r"unknown metric 'acuracy'.*Did you mean accuracy"):
        find_metric("acuracy")


def check(
    targets: Tensor, *, loss: str = "cross_entropy", classes: int | None = 3, outputs: int = 3, **more: object
) -> None:
    model = surgery.empty(tracing.trace_module(nn.Linear(4, outputs), torch.randn(2, 4), name="net"))
    options = {"criterion": find_loss(loss) if ":" not in loss else more["criterion"], "loss": loss, "classes": classes}
    inputs = model.traced.signature.inputs
    check_fit(model, torch.ones(len(targets), 4), targets, expected=inputs, **options)  # type: ignore[arg-type]


def test_what_fits() -> None:
    check(torch.tensor([0, 1, 2]))
    check(torch.tensor([0, 1, 1]), outputs=5)
    check(torch.randn(3, 3), loss="mse", classes=None)
    check(torch.tensor([0, 1, 1]), loss="bce", classes=2, outputs=1)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"targets": torch.tensor([0, 1, 2]), "outputs": 2}, "the labels name 3 classes, but the model's output has 2"),
        ({"targets": torch.randn(3, 2), "loss": "mse", "classes": None}, r"targets are \[2\] a row, but.*gives \[3\]"),
        ({"targets": torch.randn(3), "loss": "mse", "classes": None}, r"targets are \[\] a row"),
        ({"targets": torch.randn(3, 7), "classes": None}, "'cross_entropy' cannot compare"),
        ({"targets": torch.tensor([0, 1]), "loss": "a:b", "criterion": lambda o, t: o}, "not one number as a tensor"),
        ({"targets": torch.tensor([0, 1]), "loss": "a:b", "criterion": lambda o, t: 1.0}, "gives float, not one"),
        ({"targets": torch.tensor([0, 1]), "loss": "a:b", "criterion": lambda o, t: o.sum() / 0}, "is -?inf on"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(asked: dict[str, object], words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        check(**asked)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_rows_of_another_shape() -> None:
    model = surgery.empty(tracing.trace_module(nn.Linear(5, 2), torch.randn(2, 5), name="net"))
    with pytest.raises(DataError, match=r"takes rows of \[5\], but the data's are \[4\]"):
        check_fit(
            model, torch.ones(2, 4), torch.tensor([0, 1]), functional.cross_entropy,
            classes=2, loss="cross_entropy", expected=model.traced.signature.inputs,
        )  # fmt: skip


def test_scores_may_come_with_the_classes_last_as_language_models_give_them() -> None:
    targets = torch.randint(0, 5, (3, 7))
    targets[:, -1] = -100
    scores = torch.randn(3, 7, 5)
    assert torch.equal(
        find_loss("cross_entropy")(scores, targets), functional.cross_entropy(scores.movedim(-1, 1), targets)
    )
    right = (scores.argmax(-1) == targets)[:, :-1].double().mean()
    assert accuracy(scores, targets) == accuracy(scores.movedim(-1, 1), targets) == pytest.approx(float(right))


def test_smoothing_gives_a_share_of_each_label_to_all_classes() -> None:
    outputs, targets = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3
    soft = 0.8 * functional.one_hot(targets, 3) + 0.2 / 3
    expected = -(soft * outputs.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(find_loss("cross_entropy", smoothing=0.2)(outputs, targets), expected)
    labels = Data([], [], None, "classes", 3, "made up")
    torch.testing.assert_close(api.criterion_for(None, labels, smoothing=0.2)(outputs, targets), expected)
    ignored = torch.where(targets == 0, -100, targets)
    kept = targets != 0
    loss = find_loss("cross_entropy", smoothing=0.2)
    torch.testing.assert_close(loss(outputs, ignored), loss(outputs[kept], targets[kept]))


@pytest.mark.parametrize(
    ("loss", "share"), [("mse", 0.1), ("cross_entropy", 1.0), ("cross_entropy", -0.1), (None, 0.1)]
)
def test_smoothing_that_a_loss_does_not_take_is_refused(loss: str | None, share: float) -> None:
    given = loss or functional.mse_loss
    with pytest.raises(DataError, match="label smoothing"):
        api.criterion_for(given, Data([], [], None, "classes", 3, "made up"), smoothing=share)
