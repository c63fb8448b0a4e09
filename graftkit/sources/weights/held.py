"""What a file of weights holds, once it is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from graftkit.core.errors import SourceError
from graftkit.sources.files import sha256_of_all
from graftkit.sources.pickle_safety import one_line


@dataclass(frozen=True, eq=False)
class Weights:
    """Tensors by name, and what was found beside them.

    Attributes:
        path: the file, or the folder, as the user named it.
        format: "state_dict", "safetensors", "lightning" or "sharded".
        state: the tensors.
        files: every file that was read.
        hyper_parameters: plain values that a Lightning checkpoint keeps, by name.
        loose: the file holds more than the network (losses, metrics), each part under a prefix of its own.
        warnings: what a user has to know about how they were read, one line each.
    """

    path: Path
    format: str
    state: Mapping[str, Tensor]
    files: tuple[Path, ...]
    hyper_parameters: Mapping[str, Any] = field(default_factory=dict)
    loose: bool = False
    warnings: tuple[str, ...] = ()

    def sha256(self) -> str:
        """Of the file; of several, the hash of their hashes in the files' order."""
        return sha256_of_all(self.files)


class WeightsKind(Protocol):
    """A format of weights alone. A kind is a frozen dataclass without fields."""

    name: ClassVar[str]
    called: ClassVar[str]  # in messages, after "is"

    def recognises(self, path: Path, head: bytes, *, asked: bool) -> bool:
        """Whether the file is of this kind; `asked`: the user said that it holds weights."""

    def read(self, path: Path, allow: Sequence[str]) -> Weights:
        """Read it; nothing in it runs. Raises SourceError."""


def as_state(found: Any, where: str) -> Mapping[str, Tensor]:
    """The thing itself if it is a state dict. Raises SourceError that says what it is instead."""
    if is_state_dict(found):
        return {key: value for key, value in found.items() if isinstance(value, Tensor)}
    if isinstance(found, nn.Module):
        raise SourceError(f"{where} is a whole module, not a state dict; give it alone, without an architecture")
    keys = f" of {one_line(', '.join(map(str, list(found)[:5]))) or 'nothing'}" if isinstance(found, Mapping) else ""
    kind = "dict" if isinstance(found, Mapping) else type(found).__name__
    raise SourceError(f"{where} holds a {kind}{keys}, not a state dict; save model.state_dict() alone")


def is_state_dict(found: Any) -> bool:
    """Whether it maps names to tensors; modules may add state of other types under a name of torch's."""
    return isinstance(found, Mapping) and all(
        isinstance(key, str) and (isinstance(value, Tensor) or key.endswith("_extra_state"))
        for key, value in found.items()
    )
