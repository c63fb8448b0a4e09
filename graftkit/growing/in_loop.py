"""Growth inside somebody's own training loop: their optimizer learns of each dendrite, and forgets it again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import Parameter

from graftkit import ranks
from graftkit.core.errors import TrainingError
from graftkit.growing.users_optimizer import UsersOptimizer
from graftkit.model import GraftedModel
from graftkit.training import Growth, Step
from graftkit.training.growth import SLOWER


class InLoop(Growth):
    """Growth whose weights somebody else trains.

    Args:
        optimizer: the user's.
        restart: whether it begins anew with each growth.
        sign: what a score of the user's is multiplied by, for the higher one to be the better.
        given: everything that `Growth` takes.
    """

    def __init__(self, model: GraftedModel, optimizer: UsersOptimizer, *, restart: bool, sign: float, **given: object):
        self.users, self.restart, self.sign = optimizer, restart, sign
        self._loss = math.nan
        super().__init__(model, settled=1.0, **given)  # type: ignore[arg-type]

    def told(self, validation: float, loss: float) -> Step:
        """`step`, with what all processes agree on. Raises TrainingError where numbers went wrong again."""
        self.users.check()
        device = next(self.model.parameters()).device
        self._loss = ranks.agreed(loss, device)
        step = self.step(self.sign * ranks.agreed(validation, device))
        if self.diverged:
            self.close()
            best = self.sign * self.best.validation
            raise TrainingError(
                f"{self.stopped}; the model is back at its best state (validation {best:.4g}), which can be exported;"
                " try a lower learning rate"
            )
        if step.finished:
            self.close()
        return step

    def state(self) -> dict[str, Any]:
        names = {parameter: name for name, parameter in self.model.named_parameters()}
        return {**super().state(), "users": self.users.state(names)}

    def resume(self, state: Mapping[str, Any]) -> None:
        super().resume(state)
        torch.compiler.reset()
        self.users.resume(state["users"], dict(self.model.named_parameters()), self._dendrites())
        ranks.average_gradients(self.users.joined())

    def close(self) -> None:
        """Bring the model to its best state, and the optimizer to what that has."""
        self.restore_best()
        self._take_in()

    def begin(self, epochs: int, *, anew: bool) -> None:
        self._take_in()
        if self._progress.note:  # numbers went wrong, and it goes on from a good state
            self.users.forget()
            self.users.slow(SLOWER)
        elif self.history and self.restart:
            self.users.restart(self.pace)

    def learned(self) -> tuple[float, float]:
        return self._loss, self.users.rate()

    def _sound(self) -> bool:
        device = next(self.model.parameters()).device
        return math.isfinite(ranks.agreed(0.0 if super()._sound() else math.nan, device))

    def _take_in(self) -> None:
        """Let the optimizer have the dendrites that there are, and no others."""
        there = self._dendrites()
        if there.keys() == self.users.joined():
            return
        torch.compiler.reset()  # what was compiled has the graphs as they were, and does not see that they changed
        self.users.leave(there)
        new = {parameter: like for parameter, like in there.items() if parameter not in self.users.joined()}
        self.users.join(new)
        ranks.average_gradients(new)

    def _dendrites(self) -> dict[Parameter, Parameter | None]:
        """Their parameters, each with its layer's weight."""
        named = dict(self.model.base.named_parameters(remove_duplicate=False))
        weights = {site.key: named.get(site.weight) for site in self.model.traced.sites}
        found: dict[Parameter, Parameter | None] = {}
        for site in self.model.plan.sites():
            found |= dict.fromkeys(self.model.at(site).parameters(), weights[site])
        return found
