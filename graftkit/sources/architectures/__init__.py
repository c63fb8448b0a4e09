"""Architectures: what a model can be made from by name, and the one table of the ways to name one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from graftkit.core.errors import SourceError
from graftkit.core.table import Table
from graftkit.sources.architectures.hf import HuggingFace
from graftkit.sources.architectures.made import Architecture, Made, Order
from graftkit.sources.architectures.python import PythonFactory
from graftkit.sources.architectures.timm import Timm

ARCHITECTURES: Table[Architecture] = Table(
    "architecture", {kind.name: kind for kind in (Timm(), HuggingFace(), PythonFactory())}, SourceError
)
_FORMS: Mapping[str, str] = {"timm": "timm:NAME", "hf": "hf:FOLDER", "factory": "package.module:factory"}


def architecture_of(spec: str) -> Architecture | None:
    """The kind of architecture that the text names, None where it names a file or nothing. Raises SourceError."""
    if Path(spec).exists():
        return None
    return next((kind for kind in ARCHITECTURES.values() if kind.recognises(spec)), None)


def make(order: Order) -> tuple[Made, str]:
    """The architecture that was ordered, and its kind's name. Raises SourceError."""
    kind = architecture_of(order.spec)
    if kind is None:
        raise SourceError(f"{order.spec} is no architecture; write {', '.join(_FORMS.values())}")
    return kind.make(order), kind.name


def anchored(spec: str) -> str:
    """The text with every path in it made absolute, so that it means the same from any folder."""
    if Path(spec).exists():
        return str(Path(spec).resolve())
    kind, colon, place = spec.partition(":")
    return f"{kind}{colon}{Path(place).resolve()}" if kind == HuggingFace.name and Path(place).exists() else spec


__all__ = ["ARCHITECTURES", "Architecture", "Made", "Order", "anchored", "architecture_of", "make"]
