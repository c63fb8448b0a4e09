"""Training: growth, the trainer of it and a thin loop, losses, metrics and checkpoints."""

from graftkit.training.attribution import Worth, attribute
from graftkit.training.batches import batches, hold_out, take
from graftkit.training.checkpoints import Checkpoints
from graftkit.training.criteria import DEFAULT_LOSS, accuracy, check_fit, counted, find_loss, find_metric, usual_metric
from graftkit.training.distilling import Teacher
from graftkit.training.evaluate import BATCH, answers, evaluate, predict
from graftkit.training.fresh import fresh
from graftkit.training.growth import Growth
from graftkit.training.keeping import Best, bests_from_state, bests_to_state, may_keep
from graftkit.training.loop import run
from graftkit.training.progress import Step
from graftkit.training.randomness import deterministic, random_states, seeded, set_random_states
from graftkit.training.recipe import Recipe
from graftkit.training.trainer import Trainer, one_process

__all__ = [
    "BATCH",
    "DEFAULT_LOSS",
    "Best",
    "Checkpoints",
    "Growth",
    "Recipe",
    "Step",
    "Teacher",
    "Trainer",
    "Worth",
    "accuracy",
    "answers",
    "attribute",
    "batches",
    "bests_from_state",
    "bests_to_state",
    "check_fit",
    "counted",
    "deterministic",
    "evaluate",
    "find_loss",
    "find_metric",
    "fresh",
    "hold_out",
    "may_keep",
    "one_process",
    "predict",
    "random_states",
    "run",
    "seeded",
    "set_random_states",
    "take",
    "usual_metric",
]
