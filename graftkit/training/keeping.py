"""Which states growth keeps: the best validated of all, and of those that were trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from graftkit.plan import GraftPlan


@dataclass(frozen=True)
class Best:
    """The best validated state so far, and what it takes to return to it."""

    validation: float
    plan: GraftPlan
    state: dict[str, Tensor]
    cycle: int  # 0: the model as it was given


def may_keep(epoch: int, epochs: int, settled: float) -> bool:
    """Whether the state after an epoch of a phase, from 1 on, may be kept: in its last share, and after its last."""
    return epoch > epochs * (1 - settled) or epoch >= epochs


class Keeper:
    """Keeps the best states; a snapshot is taken only of one that is kept.

    Attributes:
        best: the best of all, at first the model as given.
        trained: the best after an epoch, also where the given model is better; None before any.
        of_phase: the best of those that this phase left, kept or passed by; None before any.
    """

    def __init__(self, given: Best):
        self.best = given
        self.trained: Best | None = None
        self.of_phase: Best | None = None
        self._passing: Best | None = None  # the best of the phase's epochs that may not be kept

    def begin(self) -> None:
        """A phase begins."""
        self._passing = self.of_phase = None

    def pass_by(self, validation: float, snapshot: Callable[[], Best]) -> None:
        """An epoch whose state may be kept only if the phase ends before its time."""
        if self._passing is None or validation > self._passing.validation:
            self._passing = self.of_phase = snapshot()

    def settle(self) -> None:
        """The phase ends before its time: its best state so far has to do."""
        found, self._passing = self._passing, None
        if found is not None and (self.trained is None or found.validation > self.trained.validation):
            self.trained = found
            self.best = found if found.validation > self.best.validation else self.best

    def see(self, validation: float, cycle: int, snapshot: Callable[[], Best]) -> bool:
        """An epoch whose state may be kept; of equally good ones of a cycle the latest is. Whether it beats all."""
        trained, better = self.trained, validation > self.best.validation
        same = trained is not None and validation == trained.validation and cycle == trained.cycle
        if better or same or trained is None or validation > trained.validation:
            found = snapshot()
            self.best = found if better or (same and self.best is trained) else self.best
            self.trained = self.of_phase = found
        return better

    def roles(self) -> dict[str, Best | None]:
        """Which state plays which part, for `take`."""
        return {"best": self.best, "trained": self.trained, "of_phase": self.of_phase, "passing": self._passing}

    def take(self, roles: Mapping[str, Best | None]) -> None:
        """Be what another was when it told its `roles`."""
        assert roles["best"] is not None
        self.best, self.trained = roles["best"], roles["trained"]
        self.of_phase, self._passing = roles["of_phase"], roles["passing"]


def bests_to_state(roles: Mapping[str, Best | None]) -> dict[str, Any]:
    """States and the parts they play, for a checkpoint; one that plays two parts is there once."""
    distinct = {id(best): best for best in roles.values() if best is not None}
    places = {key: index for index, key in enumerate(distinct)}
    return {
        "states": [
            {"validation": b.validation, "plan": b.plan.to_json(), "state": b.state, "cycle": b.cycle}
            for b in distinct.values()
        ],
        "roles": {role: None if best is None else places[id(best)] for role, best in roles.items()},
    }


def bests_from_state(state: Mapping[str, Any]) -> dict[str, Best | None]:
    """What `bests_to_state` was given; the same one wherever it was the same one."""
    found = [Best(**{**one, "plan": GraftPlan.from_json(one["plan"])}) for one in state["states"]]
    return {role: None if place is None else found[place] for role, place in state["roles"].items()}
