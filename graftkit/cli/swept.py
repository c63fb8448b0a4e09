"""The commands whose settings `graftkit sweep` searches: what of them is searched, and how a trial is made of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from graftkit.cli import compress as compressing
from graftkit.cli.augment import augment, check_together, default_folder, request_from

# What has nothing to do with a network's worth, or decides what that is.
_ALIKE = frozenset({
    "out", "resume", "force", "json", "trust", "allow", "seed", "seeds", "opset", "layout", "device", "logger", "data",
    "metric", "loss", "output", "part", "arch-args",
})  # fmt: skip


@dataclass(frozen=True)
class Swept:
    """A command that trials are runs of.

    Attributes:
        command: which.
        space: what is searched where nothing is said, as for `--search`.
        alike: its options that are the same in all trials.
        refused: its options that a run of a sweep cannot have, by parameter.
        instead: from a searched option to those that say the same in another way, by parameter.
        check: raises UsageError for options that contradict each other.
        job: from what it is given and a folder to a run.
        folder: from a model to the folder of its run.
    """

    command: click.Command
    space: tuple[str, ...]
    alike: frozenset[str]
    refused: tuple[str, ...]
    instead: dict[str, tuple[str, ...]]
    check: Callable[[click.Context], None]
    job: Callable[[dict[str, Any], Path], Any]
    folder: Callable[[str], Path]

    @property
    def options(self) -> dict[str, click.Option]:
        """By the name they have on the command line."""
        return {
            parameter.opts[0].removeprefix("--"): parameter
            for parameter in self.command.params
            if isinstance(parameter, click.Option)
        }


def _augmentation(given: dict[str, Any], out: Path) -> Any:
    from graftkit.sweeping import Augmentation

    return Augmentation(request_from(given, out))


def _compression(given: dict[str, Any], out: Path) -> Any:
    from graftkit.sweeping import Compression

    return Compression(compressing.asked_from(given, out))


SWEPT = {
    "augment": Swept(
        augment,
        (
            "dendrites=context:units=2,mode=add|context:units=4,mode=gate|own|own+around|lowrank:rank=2|full",
            "learning-rate=1e-3..1e-2",
            "cycles=1..2",
        ),
        _ALIKE,
        ("resume", "force"),
        {"cycles": ("budget",)},  # a budget is spent in one
        lambda context: check_together(context.params),
        _augmentation,
        default_folder,
    ),
    "compress": Swept(
        compressing.compress,
        ("keep=0.05..0.8", "importance=first-order|taylor|magnitude", "distil=0..0.9", "learning-rate=1e-3..1e-2"),
        _ALIKE | {"front", "max-loss"},
        ("resume", "force", "front"),  # a front is what a sweep over --keep gives
        {"keep": ("target", "max_loss")},
        lambda context: compressing.check_together(context, context.params),
        _compression,
        compressing.default_folder_of,
    ),
}
