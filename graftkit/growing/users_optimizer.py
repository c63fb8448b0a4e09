"""The user's own optimizer and learning-rate schedules: parameters join and leave them, nothing is made anew."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.nn import Parameter
from torch.optim import LBFGS, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from graftkit.core.errors import TrainingError

# The lists in which torch's schedules keep one entry a group of parameters.
_PER_GROUP = ("base_lrs", "_last_lr", "lr_lambdas", "max_lrs", "min_lrs", "base_momentums", "max_momentums")


class UsersOptimizer:
    """An optimizer in use, and what it was when growth took hold of it.

    A new parameter comes into a group of its own with the settings of the group in which its layer's weight is, and so
    shares its learning rate, decay and schedule.

    Raises:
        TrainingError: an optimizer that takes one group alone; or it has a schedule that was not given.
    """

    def __init__(self, optimizer: Optimizer, schedules: Sequence[LRScheduler]):
        if isinstance(optimizer, LBFGS):
            raise TrainingError("LBFGS takes one group of parameters and no more, so nothing can grow; use another one")
        self.optimizer = optimizer
        self._given = tuple(schedules)
        self.schedules = tuple(one for schedule in schedules for one in _all(schedule))
        if not self.schedules and hasattr(optimizer.step, "_wrapped_by_lr_sched"):
            raise TrainingError(
                "the optimizer has a learning-rate schedule, which must learn of new parameters: give it to the"
                " Grower, too (lr_scheduler=...)"
            )
        self._settings = [_settings(group) for group in optimizer.param_groups]
        self._begun = [copy.deepcopy(schedule.state_dict()) for schedule in self.schedules]
        self._named = 0
        self._likes: dict[Parameter, Parameter | None] = {}  # what joined, and the weight whose settings it has

    def join(self, new: Mapping[Parameter, Parameter | None]) -> None:
        """Take new parameters in, each with the settings of the group of its layer's weight."""
        by_group: dict[int, list[Parameter]] = {}
        for parameter, like in new.items():
            by_group.setdefault(self._group_of(like), []).append(parameter)
        for source, parameters in by_group.items():
            made = {**_settings(self.optimizer.param_groups[source]), "params": parameters}
            if "param_names" in self.optimizer.param_groups[source]:
                made["param_names"] = [self._new_name() for _ in parameters]
            try:
                self.optimizer.add_param_group(made)
            except ValueError as error:
                raise TrainingError(f"{type(self.optimizer).__name__} cannot take dendrites in: {error}") from error
            self._extend(source)
        self._likes.update(new)

    def leave(self, kept: Iterable[Parameter]) -> None:
        """Let go of what joined and is not kept."""
        gone = set(self._likes) - set(kept)
        if not gone:
            return
        groups = self.optimizer.param_groups
        for index in reversed(range(len(groups))):
            if not gone & set(groups[index]["params"]):
                continue
            stay = [place for place, p in enumerate(groups[index]["params"]) if p not in gone]
            for name in ("params", "param_names"):
                if name in groups[index]:
                    groups[index][name] = [groups[index][name][place] for place in stay]
            if not groups[index]["params"]:
                del groups[index]
                self._shorten(index)
        for parameter in gone:
            self.optimizer.state.pop(parameter, None)
            del self._likes[parameter]

    def check(self) -> None:
        """Raise TrainingError where the user has added or removed groups since."""
        own = sum(not self._is_ours(group) for group in self.optimizer.param_groups)
        if own != len(self._settings):
            raise TrainingError(
                f"the optimizer had {len(self._settings)} groups of your own when the Grower was made, and now has"
                f" {own}: give it all groups before, frozen parameters among them"
            )

    def joined(self) -> set[Parameter]:
        """What joined and is there."""
        return set(self._likes)

    def forget(self) -> None:
        """Drop gradients and moments, in place."""
        self.optimizer.zero_grad(set_to_none=True)
        self.optimizer.state.clear()

    def restart(self, pace: float) -> None:
        """Forget, and begin the learning-rate schedule again, all rates times `pace`; in place."""
        self.forget()
        groups = self.optimizer.param_groups
        sources = self._sources()
        for group, source in zip(groups, sources, strict=True):
            group.update(copy.deepcopy(self._settings[source]))
        for schedule, begun in zip(self.schedules, self._begun, strict=True):
            schedule.load_state_dict(copy.deepcopy(begun))
            for entries in _lists(schedule, len(self._settings)):
                entries.extend(entries[source] for source in sources[len(self._settings) :])
        self.slow(pace)

    def slow(self, pace: float) -> None:
        """Multiply all learning rates, now and to come."""
        for group in self.optimizer.param_groups:
            for name in ("lr", "initial_lr", "max_lr", "min_lr"):
                if name in group:
                    group[name] = group[name] * pace
        for schedule in self.schedules:
            for name in ("base_lrs", "_last_lr", "max_lrs"):
                entries = getattr(schedule, name, None)
                if isinstance(entries, list):
                    entries[:] = [entry * pace for entry in entries]

    def state(self, names: Mapping[Parameter, str]) -> dict[str, Any]:
        """For a checkpoint: moments, settings, schedules, and which parameters share a group, by name."""
        groups = [group["params"] for group in self.optimizer.param_groups]
        return {
            "joined": [[names[p] for p in group] for group in groups if group and group[0] in self._likes],
            "optimizer": self.optimizer.state_dict(),
            "schedules": [schedule.state_dict() for schedule in self.schedules],
            "begun": {"settings": self._settings, "schedules": self._begun},
        }

    def resume(self, state: Mapping[str, Any], there: Mapping[str, Parameter], likes: Mapping[Parameter, Any]) -> None:
        """Be what another was when it told its `state`; `there` are the parameters by name. In place.

        Raises TrainingError where the optimizer or its schedules are others than those.
        """
        state = copy.deepcopy(dict(state))
        self.leave(())
        for names in state["joined"]:
            self.join({there[name]: likes[there[name]] for name in names})
        try:
            self.optimizer.load_state_dict(state["optimizer"])
            for schedule, own in zip(self.schedules, state["schedules"], strict=True):
                schedule.load_state_dict(own)
            self._settings, self._begun = state["begun"]["settings"], state["begun"]["schedules"]
        except (ValueError, KeyError) as error:
            raise TrainingError(
                f"the optimizer or its schedules are not those of the checkpoint ({error}); make them as you did first"
            ) from error

    def bare_state(self) -> dict[str, Any]:
        """The optimizer's own state dict without what joined."""
        whole = self.optimizer.state_dict()
        groups = zip(whole["param_groups"], self.optimizer.param_groups, strict=True)
        own = [told for told, group in groups if not self._is_ours(group)]
        numbers = {number for group in own for number in group["params"]}
        state = {number: value for number, value in whole["state"].items() if number in numbers}
        return {**whole, "state": state, "param_groups": own}

    def bare_schedules(self) -> list[dict[str, Any]]:
        """The schedules' own state dicts without what joined."""
        size = len(self.optimizer.param_groups)
        own = [index for index, group in enumerate(self.optimizer.param_groups) if not self._is_ours(group)]

        def bare(state: dict[str, Any]) -> dict[str, Any]:
            found = dict(state)
            for name in _PER_GROUP:
                if isinstance(found.get(name), list) and len(found[name]) == size:
                    found[name] = [found[name][index] for index in own]
            if "_schedulers" in found:
                found["_schedulers"] = [bare(part) for part in found["_schedulers"]]
            return found

        return [bare(schedule.state_dict()) for schedule in self._given]

    def rate(self) -> float:
        """The learning rate of the first group."""
        return float(self.optimizer.param_groups[0]["lr"])

    def _is_ours(self, group: Mapping[str, Any]) -> bool:
        return bool(group["params"]) and group["params"][0] in self._likes

    def _new_name(self) -> str:
        """A name for a parameter that joins, where the optimizer has names."""
        self._named += 1
        return f"dendrite {self._named}"

    def _group_of(self, like: Parameter | None) -> int:
        for index, group in enumerate(self.optimizer.param_groups):
            if any(parameter is like for parameter in group["params"]):
                return index
        return 0

    def _sources(self) -> list[int]:
        """For each group the one whose settings it has: of the user's itself."""
        found = []
        for index, group in enumerate(self.optimizer.param_groups):
            first = group["params"][0] if group["params"] else None
            found.append(self._group_of(self._likes[first]) if first in self._likes else index)
        return found

    def _extend(self, source: int) -> None:
        size = len(self.optimizer.param_groups) - 1
        for schedule in self.schedules:
            for entries in _lists(schedule, size):
                entries.append(entries[source])

    def _shorten(self, index: int) -> None:
        size = len(self.optimizer.param_groups) + 1
        for schedule in self.schedules:
            for entries in _lists(schedule, size):
                del entries[index]


def _settings(group: Mapping[str, Any]) -> dict[str, Any]:
    """A group's own copy of its settings, without its parameters."""
    return {
        name: value.clone() if isinstance(value, Tensor) else copy.deepcopy(value)
        for name, value in group.items()
        if name not in ("params", "param_names")
    }


def _all(schedule: LRScheduler) -> list[LRScheduler]:
    """A schedule and those within it, innermost last."""
    inner = getattr(schedule, "_schedulers", ())
    return [schedule, *(one for part in inner for one in _all(part))]


def _lists(schedule: LRScheduler, size: int) -> list[list[Any]]:
    """The schedule's lists of one entry a group; a list of another length is none of them."""
    found = [getattr(schedule, name, None) for name in _PER_GROUP]
    distinct = {id(entries): entries for entries in found if isinstance(entries, list) and len(entries) == size}
    return list(distinct.values())
