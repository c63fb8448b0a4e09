"""Training: the Grower, the thin loop over it, losses, metrics and checkpoints."""

from graftkit.training.attribution import Worth, attribute
from graftkit.training.batches import batches, hold_out
from graftkit.training.criteria import DEFAULT_LOSS, accuracy, check_fit, find_loss, find_metric, usual_metric
from graftkit.training.evaluate import answers, evaluate, predict
from graftkit.training.grower import Grower
from graftkit.training.keeping import Best
from graftkit.training.loop import run, seeded
from graftkit.training.progress import Step
from graftkit.training.recipe import Recipe

__all__ = [
    "DEFAULT_LOSS",
    "Best",
    "Grower",
    "Recipe",
    "Step",
    "Worth",
    "accuracy",
    "answers",
    "attribute",
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
