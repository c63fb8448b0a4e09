"""The `sharded` format: an index, `*.index.json`, that says in which of several files each tensor is."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from graftkit.core.errors import SourceError
from graftkit.sources.files import read_head
from graftkit.sources.pickle_safety import one_line
from graftkit.sources.weights.held import Weights, WeightsKind
from graftkit.sources.weights.safetensors import Safetensors
from graftkit.sources.weights.state_dict import StateDict

_INDEX_LIMIT = 64 * 2**20
_PLAIN_NAME = re.compile(r"[\w-][\w.-]*")  # nothing that leaves the index's own folder
_KINDS: tuple[WeightsKind, ...] = (Safetensors(), StateDict())


@dataclass(frozen=True)
class Sharded:
    """`model.safetensors.index.json` or `pytorch_model.bin.index.json`, beside the files it names."""

    name: ClassVar[str] = "sharded"
    called: ClassVar[str] = "an index of files with weights"

    def recognises(self, path: Path, head: bytes, *, asked: bool) -> bool:
        return head.lstrip().startswith(b"{") and path.name.endswith(".index.json")

    def read(self, path: Path, allow: Sequence[str]) -> Weights:
        files = tuple(path.parent / name for name in _named(path))
        state: dict[str, Tensor] = {}
        warnings: list[str] = []
        for file in files:
            if not _is_there(file):
                raise SourceError(
                    f"{path} names {one_line(file.name)}, which is not beside it; copy or download it again"
                )
            shard = _read(file, allow)
            state.update(shard.state)
            warnings += shard.warnings
        return Weights(path, self.name, state, files, warnings=tuple(warnings))


def _named(index: Path) -> list[str]:
    """The files that the index names, in order, each once."""
    if index.stat().st_size > _INDEX_LIMIT:
        raise SourceError(f"{index} is larger than any index of weights; do not use it")
    try:
        places: Any = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(places.values()), key=str)
    except (ValueError, TypeError, KeyError, RecursionError, AttributeError) as error:
        raise SourceError(f"{index} is no index of weights, which maps names to files under weight_map") from error
    if not names:
        raise SourceError(f"{index} names no files; copy or download it again")
    for name in names:
        if not isinstance(name, str) or not _PLAIN_NAME.fullmatch(name):
            raise SourceError(f"{index} names {str(name)[:80]!r}, which is not a file beside it; do not use it")
    return names


def _is_there(file: Path) -> bool:
    try:
        return file.is_file()
    except OSError:  # a name that is longer than any file's
        return False


def _read(path: Path, allow: Sequence[str]) -> Weights:
    head = read_head(path)
    for kind in _KINDS:
        if kind.recognises(path, head, asked=True):
            return kind.read(path, allow)
    raise SourceError(f"{path} is neither a safetensors file nor one of torch.save; copy or download it again")
