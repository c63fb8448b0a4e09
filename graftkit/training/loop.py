"""The thin loop over a Trainer: batches in, validation scores out."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from graftkit.contracts import Metric, Rows
from graftkit.training.evaluate import evaluate
from graftkit.training.trainer import Trainer


def run(
    trainer: Trainer,
    train: DataLoader[tuple[Tensor, Tensor]],
    validation: Rows,
    metric: Metric,
    *,
    candidates: DataLoader[Any] | None = None,
) -> None:
    """Train until growth ends, then bring the model to its best state.

    `candidates` are the batches of a dendrite phase, without the rows that its test holds out. On
    KeyboardInterrupt the best state is restored too, and growth ends.
    """
    device = next(trainer.model.parameters()).device
    try:
        while trainer.phase is not None:
            if trainer.phase.kind == "dendrite":
                assert candidates is not None, "a rule with a dendrite phase is given rows for it"
                trainer.study(candidates, evaluate(trainer.model, validation, metric, device))
                continue
            for inputs, targets in train:
                trainer.learn([tensor.to(device) for tensor in trainer.model.arrange(inputs)], targets.to(device))
            trainer.step(evaluate(trainer.model, validation, metric, device))
    except KeyboardInterrupt:
        trainer.interrupt("interrupted by the user")
    trainer.restore_best()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """A context in which torch's, numpy's and Python's random numbers are those of `seed`; outside nothing changed."""
    ours, numpys = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)
            random.seed(seed)
            yield
    finally:
        random.setstate(ours)
        np.random.set_state(numpys)
