"""Shrinks a trained network's weights, so that it learns anew with its dendrites instead of staying where it was."""

from __future__ import annotations

import torch
from torch import nn

from graftkit.core.errors import TrainingError
from graftkit.learning import Rule
from graftkit.model import GraftedModel


def shrink(model: GraftedModel, share: float) -> None:
    """Multiply the weights of the network's Linear and Conv calls, in place; biases, norms and dendrites stay.

    A network trained to the end has small gradients on rows that it knows, and what joins it then finds little to
    do; one that is trained on from smaller weights generalises as if it had been trained at once (Ash and Adams 2020,
    "On Warm-Starting Neural Network Training", whose added noise made no difference here).
    """
    with torch.no_grad():
        for weight in _weights(model):
            weight.mul_(share)


def check_shrink(model: GraftedModel, share: float, rule: Rule) -> None:
    """Raise TrainingError for a share that is none, a rule that needs the network as it is, or nothing to shrink."""
    if not 0 < share <= 1:
        raise TrainingError(f"weights are shrunk to a share above 0 and at most 1, not {share}")
    if share == 1:
        return
    why = ""
    if rule.freeze or not _weights(model):
        why = "its weights stand still"
    elif rule.phases != ("neuron",):
        why = f"the rule {rule.name} teaches dendrites the errors that it makes as it is"
    if why:
        raise TrainingError(f"shrinking lets the network learn anew, but {why}; leave --shrink out")


def _weights(model: GraftedModel) -> list[nn.Parameter]:
    """The weights that learn, a shared one once, without those that a parametrization computes."""
    named = dict(model.base.named_parameters(remove_duplicate=False))
    found = [named[site.weight] for site in model.traced.sites if site.weight in named and not _computed(site.weight)]
    return [weight for weight in dict.fromkeys(found) if weight.requires_grad]


def _computed(name: str) -> bool:
    return ".parametrizations." in f".{name}"
