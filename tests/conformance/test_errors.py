"""Every error of ours can be told again in other words, as callers do who know more, and sent between processes."""

from __future__ import annotations

import importlib
import pickle
import pkgutil

import pytest

import graftkit
from graftkit.core.errors import GraftkitError

APART = ("graftkit.integrations", "graftkit.runtimes.workers")  # what is imported where an extra is installed, alone


def errors() -> list[type[GraftkitError]]:
    """All of the package, in an order of their own."""
    for module in pkgutil.walk_packages(graftkit.__path__, "graftkit."):
        if not module.name.startswith(APART) and not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found, waiting = set(), [GraftkitError]
    while waiting:
        found.add(kind := waiting.pop())
        waiting += kind.__subclasses__()
    return sorted((kind for kind in found if kind.__module__.startswith("graftkit.")), key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", errors(), ids=lambda kind: kind.__name__)
def test_it_is_made_of_a_message(kind: type[GraftkitError]) -> None:
    told = kind("what is wrong, where, and what to do")
    again = type(told)(f"a.pt: {told}")
    assert str(again) == "a.pt: what is wrong, where, and what to do" and again.exit_code
    sent = pickle.loads(pickle.dumps(again))
    assert type(sent) is kind and str(sent) == str(again)
