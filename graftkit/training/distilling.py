"""Learns from a network's answers beside the labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from graftkit.contracts import Inputs
from graftkit.model import GraftedModel
from graftkit.training.criteria import IGNORED, scores_second


@dataclass(frozen=True, eq=False)
class Teacher:
    """A network that stands still, and how much its answers count (Hinton, Vinyals and Dean 2015).

    Attributes:
        model: takes what the one that learns takes; it is only read.
        share: of the loss that is made of the answers; the rest is made of the labels.
        says: "classes", scores compared as probabilities; "yes", each number by itself, by its sigmoid; "values".
        temperature: scores of classes are divided by it, and that part of the loss multiplied by its square.
        scores_at: the dimension of the scores.
    """

    model: GraftedModel
    share: float = 0.5
    says: Literal["classes", "yes", "values"] = "classes"
    temperature: float = 2.0
    scores_at: int = 1

    @staticmethod
    def of(model: GraftedModel, share: float, loss: str, batch: tuple[Inputs, Tensor]) -> Teacher:
        """The teacher whose answers the loss of this name, on a batch like this, says how to read."""
        inputs, targets = batch
        device = next(model.parameters()).device
        with torch.no_grad():
            output = model.eval()(*(tensor.to(device) for tensor in model.arrange(inputs)))
        if loss == "bce":
            return Teacher(model, share, "yes")
        if loss != "cross_entropy":
            return Teacher(model, share, "values")
        last = scores_second(output, targets) is not output
        return Teacher(model, share, scores_at=-1 if last else 1)

    def mixed(self, own: Tensor, inputs: Sequence[Tensor], output: Tensor, targets: Tensor) -> Tensor:
        """The loss on the labels with that on the answers; `inputs` in the signature's order.

        Where a label does not count (-100), neither do the answers.
        """
        if self.share == 0:
            return own
        self.model.eval()
        with torch.no_grad():
            said = self.model(*inputs)
        return (1 - self.share) * own + self.share * self._apart(output.float(), said.float(), targets)

    def _apart(self, output: Tensor, said: Tensor, targets: Tensor) -> Tensor:
        if self.says == "values":
            return functional.mse_loss(output, said)
        if self.says == "yes":
            return functional.binary_cross_entropy_with_logits(output, said.sigmoid())
        each = (scores.movedim(self.scores_at, -1).flatten(0, -2) for scores in (output, said))
        ours, theirs = (scores / self.temperature for scores in each)
        if not targets.is_floating_point():
            counts = (targets != IGNORED).flatten()
            ours, theirs = ours[counts], theirs[counts]
        if not len(ours):
            return output.sum() * 0.0
        apart = functional.kl_div(ours.log_softmax(-1), theirs.log_softmax(-1), reduction="batchmean", log_target=True)
        return apart * self.temperature**2
