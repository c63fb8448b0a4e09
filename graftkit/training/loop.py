"""The thin loop over a Trainer: batches in, validation scores out."""

from __future__ import annotations

from collections.abc import Callable

from graftkit import ranks
from graftkit.contracts import Metric, Rows
from graftkit.training.batches import Batches
from graftkit.training.evaluate import evaluate
from graftkit.training.randomness import align
from graftkit.training.trainer import Trainer


def run(
    trainer: Trainer,
    train: Batches,
    validation: Rows,
    metric: Metric,
    *,
    candidates: Batches | None = None,
    after: Callable[[], None] = lambda: None,
) -> None:
    """Train until growth ends, then bring the model to its best state.

    `candidates` are the batches of a dendrite phase, without the rows that its test holds out; `after` is called
    after each epoch, and after each dendrite phase. On KeyboardInterrupt the best state is restored, too, and growth
    ends; where several processes train, it is raised.
    """
    device = next(trainer.model.parameters()).device
    try:
        while trainer.phase is not None:
            if trainer.phase.kind == "dendrite":
                assert candidates is not None, "a rule with a dendrite phase is given rows for it"
                trainer.study(candidates, evaluate(trainer.model, validation, metric, device))
                after()
                continue
            align(train)
            for number, (inputs, targets) in enumerate(train, 1):
                trainer.learn([tensor.to(device) for tensor in trainer.model.arrange(inputs)], targets.to(device))
                trainer.tell_step(number)
            ranks.average_buffers(trainer.model)
            trainer.step(evaluate(trainer.model, validation, metric, device))
            after()
    except KeyboardInterrupt:
        if ranks.several():  # which are not all at the same place
            raise
        trainer.interrupt("interrupted by the user")
    trainer.restore_best()
