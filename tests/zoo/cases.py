"""All cases of the zoo, by family."""

from __future__ import annotations

import fnmatch
import importlib
from collections.abc import Iterator

from .case import Case

FAMILIES = ("timm", "hf", "torchvision", "classic")


def all_cases(families: tuple[str, ...] = FAMILIES, only: str = "*") -> Iterator[Case]:
    """The cases of some families whose name, with or without its family, matches a glob pattern."""
    for family in families:
        for case in importlib.import_module(f".{family}_models", __package__).cases():
            if fnmatch.fnmatch(case.name, only) or fnmatch.fnmatch(case.name.partition("/")[2], only):
                yield case


def find(name: str) -> Case:
    """The case called `name`; raises LookupError."""
    for case in all_cases((name.partition("/")[0],)):
        if case.name == name:
            return case
    raise LookupError(f"the zoo has no {name}")
