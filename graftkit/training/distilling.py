"""Learns from a network's answers beside the labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from graftkit.model import GraftedModel


@dataclass(frozen=True, eq=False)
class Teacher:
    """A network that stands still, and how much its answers count (Hinton, Vinyals and Dean 2015).

    Attributes:
        model: takes what the one that learns takes; it is only read.
        share: of the loss that is made of the answers; the rest is made of the labels.
        classes: answers are scores of classes, in `scores_at`, compared as probabilities; else they are values.
        temperature: scores are divided by it, and that part of the loss multiplied by its square.
        scores_at: the dimension of the scores.
    """

    model: GraftedModel
    share: float = 0.5
    classes: bool = True
    temperature: float = 2.0
    scores_at: int = 1

    def mixed(self, own: Tensor, inputs: Sequence[Tensor], output: Tensor) -> Tensor:
        """The loss on the labels with that on the answers; `inputs` in the signature's order."""
        if self.share == 0:
            return own
        self.model.eval()
        with torch.no_grad():
            said = self.model(*inputs)
        return (1 - self.share) * own + self.share * self._apart(output.float(), said.float())

    def _apart(self, output: Tensor, said: Tensor) -> Tensor:
        if not self.classes:
            return functional.mse_loss(output, said)
        if output.shape[self.scores_at] == 1 or output.ndim == 1:  # one score: yes or no
            return functional.binary_cross_entropy_with_logits(output, said.sigmoid())
        ours, theirs = (
            scores.movedim(self.scores_at, -1).flatten(0, -2) / self.temperature for scores in (output, said)
        )
        apart = functional.kl_div(ours.log_softmax(-1), theirs.log_softmax(-1), reduction="batchmean", log_target=True)
        return apart * self.temperature**2
