"""The `lightning` format: a checkpoint of a Lightning trainer, with the arguments its module was made with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from graftkit.core.errors import SourceError
from graftkit.sources.torch_zip import holds_a_mapping, is_torch_zip, structure
from graftkit.sources.weights.checkpoint import read_checkpoint
from graftkit.sources.weights.held import Weights, as_state
from graftkit.sources.weights.state_dict import what_was_left_out

_SIGN = "pytorch-lightning_version"
_DEPTH = 8  # of lists and dicts among the arguments


@dataclass(frozen=True)
class Lightning:
    """`.ckpt`."""

    name: ClassVar[str] = "lightning"
    called: ClassVar[str] = "a Lightning checkpoint"

    def recognises(self, path: Path, head: bytes, *, asked: bool) -> bool:
        return is_torch_zip(path, head) and holds_a_mapping(path, layers=True) and _SIGN.encode() in structure(path)

    def read(self, path: Path, allow: Sequence[str]) -> Weights:
        found, left_out = read_checkpoint(path, allow)
        if not isinstance(found, Mapping) or "state_dict" not in found:
            raise SourceError(f"{path} is a Lightning checkpoint without a state_dict; copy or download it again")
        state = as_state(found["state_dict"], f"{path}: state_dict")
        warnings = what_was_left_out(path, left_out)
        arguments = plain_arguments(found.get("hyper_parameters"))
        return Weights(path, self.name, state, (path,), arguments, loose=True, warnings=warnings)


def plain_arguments(found: Any) -> dict[str, Any]:
    """Those of the arguments that are numbers, texts, and lists and dicts of them."""
    if not isinstance(found, Mapping):
        return {}
    return {name: value for name, value in found.items() if isinstance(name, str) and _is_plain(value, _DEPTH)}


def _is_plain(value: Any, depth: int) -> bool:
    if value is None or isinstance(value, bool | int | float | str):
        return True
    if depth and isinstance(value, list | tuple):
        return all(_is_plain(member, depth - 1) for member in value)
    if depth and isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(member, depth - 1) for key, member in value.items())
    return False
