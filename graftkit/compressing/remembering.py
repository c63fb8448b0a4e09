"""What a killed compression must not do another time: cuts, which rows decide, and costs, which clocks decide."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from torch import nn

from graftkit import pruning
from graftkit.fitting import Journal
from graftkit.pruning import Change, Shapes, Width


def number(journal: Journal, key: str, measure: Callable[[], float]) -> float:
    """What was measured, the first time."""
    ended = journal.ended(key)
    if ended is None:
        ended = {"number": measure()}
        journal.end(key, ended)
    return float(ended["number"])


def module(
    journal: Journal, key: str, before: nn.Module, cut: Callable[[], tuple[nn.Module, tuple[Width, ...]]]
) -> tuple[nn.Module, tuple[Width, ...]]:
    """What was cut of `before`, the first time, and the widths that it has left."""
    ended = journal.ended(key)
    if ended is None:
        after, widths = cut()
        tensors = {name: tensor.detach().cpu().clone() for name, tensor in after.state_dict().items()}
        shapes = pruning.shapes_of(before, after).to_json()
        journal.end(key, {"shapes": shapes, "tensors": tensors, "widths": [asdict(width) for width in widths]})
        return after, widths
    after = copy.deepcopy(before)
    pruning.apply(after, Shapes.from_json(ended["shapes"]))
    after.load_state_dict(ended["tensors"])
    return after, tuple(_width(told) for told in ended["widths"])


def _width(told: dict[str, Any]) -> Width:
    units = tuple(tuple(unit) for unit in told["units"])
    return Width(told["name"], tuple(told["layers"]), units, tuple(Change(**change) for change in told["changes"]))
