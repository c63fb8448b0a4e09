"""How sure a gain on the validation rows is: the standard error of a metric's difference between two networks."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from graftkit.contracts import Metric

_MOST = 10**8  # numbers to copy: where that allows it each row is left out once, otherwise one of so many groups
_GROUPS = 50

Answers = tuple[Tensor, Tensor]  # (outputs, targets) over all rows


def difference_error(metric: Metric, ours: Answers, theirs: Answers) -> float | None:
    """The standard error of metric(ours) - metric(theirs); None where the rows cannot tell.

    A jackknife that leaves out one row at a time, or one group of many rows (Efron 1982, The Jackknife, the Bootstrap
    and Other Resampling Plans), so that it holds for any metric. Both networks lose the same rows, unless their rows
    came in another order; then each has an error of its own. The rows cannot tell where there is one alone, where the
    networks saw another number of them, or where the metric is no number without some of them.
    """
    count = len(ours[1])
    groups = count if ours[0].numel() * count <= _MOST else min(_GROUPS, count)
    if groups < 2 or len(theirs[1]) != count:
        return None
    first, second = (left_out(metric, answers, groups) for answers in (ours, theirs))
    paired = torch.equal(ours[1], theirs[1])
    error = jackknife_error(first - second) if paired else math.hypot(*map(jackknife_error, (first, second)))
    wider = 1 if groups == count else 1 + 1 / groups  # groups are not quite of one size
    return error * wider if math.isfinite(error) else None


def left_out(metric: Metric, answers: Answers, groups: int = _GROUPS) -> Tensor:
    """The metric without each of so many groups of rows, [groups]; NaN where it is no number without some of them."""
    outputs, targets = answers
    group = torch.arange(len(targets)) % groups
    try:
        found = [metric(outputs[group != g], targets[group != g]) for g in range(groups)]
    except Exception:  # a metric of the user's that some rows are needed for
        found = [math.nan] * groups
    return torch.tensor(found, dtype=torch.float64)


def jackknife_error(values: Tensor) -> float:
    """The standard error of what has these values without each group (Efron 1982)."""
    groups = len(values)
    return float(((groups - 1) / groups * (values - values.mean()).square().sum()).sqrt())
