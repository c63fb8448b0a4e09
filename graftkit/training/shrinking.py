"""Shrinks a trained network's weights, so that it learns anew with its dendrites instead of staying where it was."""

from __future__ import annotations

import torch

from graftkit.core.errors import TrainingError
from graftkit.learning import Rule
from graftkit.model import GraftedModel


def shrink(model: GraftedModel, share: float) -> None:
    """Multiply every weight of two or more dimensions that learns, a shared one once, in place.

    A network trained to the end has small gradients on rows that it knows, and what joins it then finds little to
    do; one that is trained on from smaller weights generalises as if it had been trained at once (Ash and Adams 2020,
    "On Warm-Starting Neural Network Training", whose added noise made no difference here). Biases and norms stay.
    """
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad and parameter.ndim > 1:
                parameter.mul_(share)


def check_shrink(share: float, rule: Rule) -> None:
    """Raise TrainingError for a share that is none, or a rule whose dendrites need the network as it is."""
    if not 0 < share <= 1:
        raise TrainingError(f"weights are shrunk to a share above 0 and at most 1, not {share}")
    if share < 1 and (rule.freeze or rule.phases != ("neuron",)):
        why = "the network stands still" if rule.freeze else f"the rule {rule.name} teaches dendrites its errors"
        raise TrainingError(f"shrinking lets the network learn anew, but {why}; leave --shrink out")
