"""The `state_dict` format: tensors by name that torch.save wrote, alone or somewhere in a training checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from graftkit.sources.pickle_safety import listed
from graftkit.sources.torch_zip import holds_a_mapping, is_torch_zip
from graftkit.sources.weights.checkpoint import read_checkpoint
from graftkit.sources.weights.held import Weights, as_state, is_state_dict

_USUAL = ("state_dict", "model_state_dict", "model", "module", "net", "network", "weights", "params")


@dataclass(frozen=True)
class StateDict:
    """`.pt`, `.pth`, `.bin`."""

    name: ClassVar[str] = "state_dict"
    called: ClassVar[str] = "a state dict"

    def recognises(self, path: Path, head: bytes, *, asked: bool) -> bool:
        if is_torch_zip(path, head):
            return asked or holds_a_mapping(path, layers=False)
        return asked and head.startswith(b"\x80")

    def read(self, path: Path, allow: Sequence[str]) -> Weights:
        found, left_out = read_checkpoint(path, allow)
        key = None if is_state_dict(found) else _key_of_the_weights(found)
        state = as_state(found if key is None else found[key], str(path))
        warnings = []
        if key is not None:
            warnings.append(f"the weights are those under {key!r} in {path}, which holds {_held(found)}")
        return Weights(path, self.name, state, (path,), warnings=(*warnings, *what_was_left_out(path, left_out)))


def what_was_left_out(path: Path, names: Sequence[str]) -> tuple[str, ...]:
    """A line on objects that a checkpoint holds besides tensors and plain values."""
    return (f"objects in {path} were passed over, and their classes not imported: {listed(names)}",) if names else ()


def _key_of_the_weights(found: Any) -> str | None:
    """The usual name of the weights in a training checkpoint, or the only one that holds a state dict."""
    if not isinstance(found, Mapping):
        return None
    states = [key for key, value in found.items() if isinstance(value, Mapping) and value and is_state_dict(value)]
    usual = [key for key in _USUAL if key in states]
    return usual[0] if usual else states[0] if len(states) == 1 else None


def _held(found: Mapping[Any, Any]) -> str:
    return listed([str(key) for key in found])
