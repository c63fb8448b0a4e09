"""Training: the Grower, the thin loop over it, losses, metrics and checkpoints."""

from graftkit.training.batches import batches, hold_out
from graftkit.training.criteria import DEFAULT_LOSS, accuracy, check_fit, find_loss, find_metric, usual_metric
from graftkit.training.evaluate import evaluate, predict
from graftkit.training.grower import Best, Grower, Recipe, Step
from graftkit.training.loop import run, seeded

__all__ = [
    "DEFAULT_LOSS",
    "Best",
    "Grower",
    "Recipe",
    "Step",
    "accuracy",
    "batches",
    "check_fit",
    "evaluate",
    "find_loss",
    "find_metric",
    "hold_out",
    "predict",
    "run",
    "seeded",
    "usual_metric",
]
