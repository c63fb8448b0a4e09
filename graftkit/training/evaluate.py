"""A model's metric over rows, in evaluation mode and full precision."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from graftkit.contracts import Inputs, Metric, Rows
from graftkit.model import GraftedModel
from graftkit.training.batches import batches

BATCH = 512


def predict(forward: Callable[[Inputs], Tensor], rows: Rows) -> tuple[Tensor, Tensor]:
    """(outputs, targets) over all rows, on the CPU; `forward` takes a batch as the rows give it."""
    outputs, targets = [], []
    with torch.no_grad():
        for inputs, wanted in batches(rows, BATCH):
            outputs.append(forward(inputs).float().cpu())
            targets.append(wanted)
    return torch.cat(outputs), torch.cat(targets)


def answers(model: GraftedModel, rows: Rows, device: torch.device) -> tuple[Tensor, Tensor]:
    """(outputs, targets) of the model over rows, in evaluation; the model's mode stays as it was."""
    training = model.training
    model.eval()
    try:
        return predict(lambda inputs: model(*(x.to(device) for x in model.arrange(inputs))), rows)
    finally:
        model.train(training)


def evaluate(model: GraftedModel, rows: Rows, metric: Metric, device: torch.device) -> float:
    """The metric of the model over rows, NaN where an output is not finite; the model's mode stays as it was."""
    outputs, targets = answers(model, rows, device)
    return metric(outputs, targets) if torch.isfinite(outputs).all() else math.nan
