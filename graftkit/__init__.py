"""graftkit grafts dendrites onto trained PyTorch models and ships them as plain ONNX files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graftkit.api import (
        export,
        fit,
        graft,
        inspect,
        load,
        load_data,
        load_dendrites,
        make_plan,
        save_dendrites,
        trace,
        verify,
    )
    from graftkit.core.errors import GraftkitError
    from graftkit.growing import Grower, growable

__all__ = [
    "GraftkitError",
    "Grower",
    "export",
    "fit",
    "graft",
    "growable",
    "inspect",
    "load",
    "load_data",
    "load_dendrites",
    "make_plan",
    "save_dendrites",
    "trace",
    "verify",
]

_HOMES = {"Grower": "graftkit.growing", "growable": "graftkit.growing", "GraftkitError": "graftkit.core.errors"}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: torch is heavy, and `graftkit --help` is not."""
    if name not in __all__:
        raise AttributeError(f"module 'graftkit' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES.get(name, "graftkit.api")), name)
