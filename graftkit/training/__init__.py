"""Training: growth, the trainer of it and a thin loop, losses, metrics and checkpoints."""

from graftkit.training.attribution import Worth, attribute
from graftkit.training.batches import batches, hold_out
from graftkit.training.criteria import DEFAULT_LOSS, accuracy, check_fit, find_loss, find_metric, usual_metric
from graftkit.training.evaluate import answers, evaluate, predict
from graftkit.training.growth import Growth
from graftkit.training.keeping import Best
from graftkit.training.loop import run, seeded
from graftkit.training.progress import Step
from graftkit.training.recipe import Recipe
from graftkit.training.trainer import Trainer

__all__ = [
    "DEFAULT_LOSS",
    "Best",
    "Growth",
    "Recipe",
    "Step",
    "Trainer",
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
