"""Chooses weight decay and sparsity on validation rows, by the first step of a compression."""

from __future__ import annotations

from dataclasses import replace

from graftkit import pruning
from graftkit.compressing.asked import Asked
from graftkit.compressing.lab import Lab, Network
from graftkit.compressing.shrinking import shrunk
from graftkit.compressing.target import Target
from graftkit.training import Recipe

TRIED = ((1.0, 0.0), (5.0, 0.0), (1.0, 1e-4), (1.0, 1e-3))  # times the recipe's weight decay; sparsity
_FIRST = 0.7  # of the model as given, where no target says how large the first step is


def chosen_recipe(lab: Lab, asked: Asked, given: Network, target: Target, amount: float) -> Recipe:
    """The recipe whose first step validates best; the one that was asked for where it says what sparsity is.

    Args:
        lab: trains.
        asked: what was asked for.
        given: the model as given; it stays as it is.
        target, amount: how small, and what the given model has.
    """
    recipe = lab.settings.recipe
    if asked.sparsity is not None:
        return replace(recipe, sparsity=asked.sparsity)
    share = _FIRST if asked.searches else (target.of(amount) / amount) ** (1 / asked.steps)
    importance, seed, settings = pruning.IMPORTANCES.find(asked.importance), lab.settings.seed, lab.settings
    scores = []
    for number, (times, sparsity) in enumerate(TRIED):
        lab.observer.on_stage(f"trying weight decay {times * recipe.weight_decay:g} and sparsity {sparsity:g}")
        own = replace(recipe, weight_decay=times * recipe.weight_decay, sparsity=sparsity)
        lab.settings = replace(settings, recipe=own)
        smaller = shrunk(lab, given, target.cost, target.counted, share * amount, importance, f"recipe {number}", seed)
        tried = lab.trained(smaller, f"recipe {number}", "short trial", (settings.epochs,), seed)
        scores.append((tried.measured.validation, -number, own))
    lab.settings = settings
    return max(scores, key=lambda one: one[:2])[2]
