"""The thin loop over a Trainer: batches in, validation scores out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
    after: Callable[[], None] = lambda: None,
) -> None:
    """Train until growth ends, then bring the model to its best state.

    `candidates` are the batches of a dendrite phase, without the rows that its test holds out; `after` is called
    after each epoch, and after each dendrite phase. On KeyboardInterrupt the best state is restored, too, and growth
    ends.
    """
    device = next(trainer.model.parameters()).device
    try:
        while trainer.phase is not None:
            if trainer.phase.kind == "dendrite":
                assert candidates is not None, "a rule with a dendrite phase is given rows for it"
                trainer.study(candidates, evaluate(trainer.model, validation, metric, device))
                after()
                continue
            for inputs, targets in train:
                trainer.learn([tensor.to(device) for tensor in trainer.model.arrange(inputs)], targets.to(device))
            trainer.step(evaluate(trainer.model, validation, metric, device))
            after()
    except KeyboardInterrupt:
        trainer.interrupt("interrupted by the user")
    trainer.restore_best()
