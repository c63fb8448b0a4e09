"""The `safetensors` format: tensors by name, and nothing that could run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from safetensors.torch import load_file

from graftkit.core.errors import SourceError
from graftkit.sources.pickle_safety import first_line
from graftkit.sources.weights.held import Weights

_HEADER_LIMIT = 2**27  # more than the format allows


@dataclass(frozen=True)
class Safetensors:
    """`.safetensors`: eight bytes of length, a JSON header, numbers."""

    name: ClassVar[str] = "safetensors"
    called: ClassVar[str] = "a safetensors file"

    def recognises(self, path: Path, head: bytes, *, asked: bool) -> bool:
        return head[8:9] == b"{" and int.from_bytes(head[:8], "little") < _HEADER_LIMIT

    def read(self, path: Path, allow: Sequence[str]) -> Weights:
        try:
            return Weights(path, self.name, load_file(path), (path,))
        except Exception as error:  # whatever a foreign file provokes is the file's fault
            raise SourceError(f"{path} is a safetensors file that cannot be read: {first_line(error)}") from error
