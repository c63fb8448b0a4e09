"""A model's metric over rows, in evaluation mode and full precision."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import islice, zip_longest

import torch
from torch import Tensor

from graftkit import ranks
from graftkit.contracts import Inputs, Metric, Rows
from graftkit.model import GraftedModel
from graftkit.rounding import whole_numbers
from graftkit.training.batches import batches
from graftkit.training.randomness import align

BATCH = 512
Pair = tuple[Tensor, Tensor]


def predict(forward: Callable[[Inputs], Tensor], rows: Rows) -> tuple[Tensor, Tensor]:
    """(outputs, targets) over all rows, on the CPU; `forward` takes a batch as the rows give it."""
    return _joined(_answered(forward, batches(rows, BATCH)))


def answers(model: GraftedModel, rows: Rows, device: torch.device) -> tuple[Tensor, Tensor]:
    """(outputs, targets) of the model over rows, in evaluation; the model's mode stays as it was.

    Of several processes each answers some of the batches, and all have all answers.
    """
    training = model.training
    model.eval()
    align(rows)
    try:
        mine = islice(batches(rows, BATCH), ranks.number(), None, ranks.count())
        own = _answered(lambda inputs: model(*(x.to(device) for x in model.arrange(inputs))), mine)
    finally:
        model.train(training)
    return _joined([pair for turn in zip_longest(*ranks.gathered(own)) for pair in turn if pair is not None])


def _answered(forward: Callable[[Inputs], Tensor], given: Iterable[tuple[Inputs, Tensor]]) -> list[Pair]:
    with torch.no_grad(), whole_numbers():
        return [(forward(inputs).float().cpu(), wanted.cpu()) for inputs, wanted in given]


def _joined(pairs: Iterable[Pair]) -> Pair:
    outputs, targets = zip(*pairs, strict=True)
    return torch.cat(outputs), torch.cat(targets)


def evaluate(model: GraftedModel, rows: Rows, metric: Metric, device: torch.device) -> float:
    """The metric of the model over rows, NaN where an output is not finite; the model's mode stays as it was."""
    outputs, targets = answers(model, rows, device)
    return ranks.told(lambda: metric(outputs, targets)) if torch.isfinite(outputs).all() else math.nan
