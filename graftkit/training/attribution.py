"""Says what each neuron's dendrite is worth: how much of the loss it takes away on rows that were not learned from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest

import torch
from torch import Tensor, nn

from graftkit import ranks
from graftkit.contracts import Criterion, Inputs
from graftkit.core.errors import TrainingError
from graftkit.core.sites import Site
from graftkit.model import GraftedModel
from graftkit.plan import Graft

_STEPS = 8


@dataclass(frozen=True)
class Worth:
    """What one dendrite is worth to each neuron of its site; a neuron that it does not serve has nothing.

    Attributes:
        graft: the dendrite.
        mean: the loss that it takes away, [neurons], mean over rows.
        error: the standard error of that mean, [neurons], from the spread over batches.
        whole_error: the standard error of what it is worth to all of them together.
    """

    graft: Graft
    mean: Tensor
    error: Tensor
    whole_error: float


def attribute(
    model: GraftedModel,
    rows: Iterable[tuple[Inputs, Tensor]],
    criterion: Criterion,
    *,
    first: int = 0,
    steps: int = _STEPS,
) -> tuple[Worth, ...]:
    """The worth of every dendrite in the model's plan from the `first` on, in the plan's order.

    All strengths are brought from zero to what they are along a straight line, and each number's share of the change in
    loss is its own way times the mean gradient along the line (the Aumann-Shapley value; as Integrated Gradients,
    Sundararajan et al. 2017). The shares add up to all that the dendrites do together, also where the gradient is
    zero at the end of the line, as at a converged layer. The model is in evaluation mode and ends as it was. Of several
    processes each takes some of the batches, and all have all of what is found.

    Args:
        model: with its dendrites trained.
        rows: batches of (inputs, targets), best such that were not trained on.
        criterion: the loss, (outputs, targets) to one number.
        first: so many dendrites stay as they are and are not valued.
        steps: gradients along the line, at the middle of as many equal parts.

    Raises:
        TrainingError: no batch gives finite numbers; single ones that do not are passed over.
    """
    grafts = model.plan.grafts[first:]
    strengths = [dendrite.strengths() for dendrite in model.members()[first:]]
    numbers = [p for own in strengths for p in own]
    ends = [p.detach().clone() for p in numbers]
    training = model.training
    model.eval()
    own: list[tuple[int, list[Tensor]]] = []  # of each batch: rows, and what each dendrite takes away for each neuron
    try:
        for inputs, targets in islice(rows, ranks.number(), None, ranks.count()):
            shares = _shares(model, numbers, ends, inputs, targets, criterion, steps)
            if shares is not None:  # as where every label of a batch is ignored
                own.append((len(targets), _by_dendrite(shares, strengths)))
    finally:
        _set(numbers, ends)
        model.train(training)
    found = [one for turn in zip_longest(*ranks.gathered(own)) for one in turn if one is not None]
    if not found:
        raise TrainingError("no batch of rows gives a loss that is a number, so nothing can be valued")
    weights, samples = [rows for rows, _ in found], zip(*(shares for _, shares in found), strict=True)
    sites = [model.traced.site(graft.site) for graft in grafts]
    return tuple(
        _worth(graft, site, sample, weights) for graft, site, sample in zip(grafts, sites, samples, strict=True)
    )


def _shares(
    model: GraftedModel,
    numbers: list[nn.Parameter],
    ends: list[Tensor],
    inputs: Inputs,
    targets: Tensor,
    criterion: Criterion,
    steps: int,
) -> list[Tensor] | None:
    """The loss that each number takes away on one batch, None where that is no number."""
    device = ends[0].device
    given, wanted = [x.to(device) for x in model.arrange(inputs)], targets.to(device)
    total = [torch.zeros_like(end) for end in ends]
    for step in range(steps):
        _set(numbers, [end * ((step + 0.5) / steps) for end in ends])
        with torch.enable_grad():
            loss = criterion(model(*given).float(), wanted)
            if not loss.isfinite():
                return None
            slopes = torch.autograd.grad(loss, numbers, allow_unused=True, materialize_grads=True)
        for sum_, slope in zip(total, slopes, strict=True):
            sum_ += slope
    return [-end * sum_ / steps for end, sum_ in zip(ends, total, strict=True)]


def _by_dendrite(shares: list[Tensor], strengths: Sequence[Sequence[nn.Parameter]]) -> list[Tensor]:
    """Of each dendrite, [neurons], on the CPU."""
    left, found = list(shares), []
    for own in strengths:
        mine, left = left[: len(own)], left[len(own) :]
        found.append(torch.stack([share.reshape(len(share), -1).sum(1) for share in mine]).sum(0).cpu())
    return found


def _set(numbers: list[nn.Parameter], values: list[Tensor]) -> None:
    with torch.no_grad():
        for p, value in zip(numbers, values, strict=True):
            p.copy_(value)


def _worth(graft: Graft, site: Site, samples: Sequence[Tensor], weights: list[int]) -> Worth:
    """Mean and error over batches, spread over all neurons."""
    found = torch.stack(list(samples)).double()
    share = torch.tensor(weights, dtype=torch.float64) / sum(weights)
    mean, error = _mean_and_error(found, share)
    together = float(_mean_and_error(found.sum(1, keepdim=True), share)[1])
    served = list(range(site.out_channels)) if graft.neurons is None else list(graft.neurons)
    whole = torch.zeros(2, site.out_channels, dtype=torch.float64)
    whole[:, served] = torch.stack([mean, error])
    return Worth(graft, whole[0], whole[1], together)


def _mean_and_error(samples: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Over the first dimension, which are batches, each with its share of the rows; one batch has no error."""
    mean = share @ samples
    count = len(samples)
    if count < 2:
        return mean, torch.full_like(mean, torch.inf)
    return mean, (share.square() @ (samples - mean).square() * count / (count - 1)).sqrt()
