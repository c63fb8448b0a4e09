"""The callback for the Trainer of transformers, where its arguments or its metrics do not fit."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from graftkit.core.errors import TrainingError
from graftkit.integrations.transformers import Growth


def begun(**arguments: Any) -> Growth:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    growth = Growth(model, torch.randn(2, 4), schedule="rounds:epochs=1,dendrites=1")
    told = SimpleNamespace(**{"remove_unused_columns": False, "label_names": ["labels"], **arguments})
    optimizer = torch.optim.SGD(growth.model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer)
    growth.on_train_begin(told, None, None, optimizer=optimizer, lr_scheduler=schedule)  # type: ignore[arg-type]
    return growth


def evaluated(growth: Growth, **metrics: float) -> bool:
    control = SimpleNamespace(should_training_stop=False)
    growth.on_evaluate(None, None, control, metrics=metrics)  # type: ignore[arg-type]
    return control.should_training_stop


def test_it_grows_by_the_metric_and_stops() -> None:
    growth = begun()
    assert not evaluated(growth, eval_loss=0.5) and len(growth.grower.plan.grafts) == 1
    assert evaluated(growth, eval_loss=0.6) and not growth.grower.plan.grafts  # of losses the smaller is better
    assert growth.grower.best == 0.5 and not evaluated(growth, eval_loss=0.1)


@pytest.mark.parametrize("arguments", [{"remove_unused_columns": True}, {"label_names": None}])
def test_arguments_that_would_drop_the_rows_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(TrainingError, match="remove_unused_columns=False"):
        begun(**arguments)


def test_a_metric_that_is_not_there_is_named() -> None:
    with pytest.raises(TrainingError, match="gives no 'eval_loss'; it gives eval_accuracy"):
        evaluated(begun(), eval_accuracy=0.5)
