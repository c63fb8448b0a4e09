"""Weights without an architecture: the one table of their formats, read by content."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from graftkit.core.errors import SourceError
from graftkit.core.table import Table
from graftkit.sources.files import ZIP_MAGIC, read_head, refusal
from graftkit.sources.weights.fit import fill
from graftkit.sources.weights.held import Weights, WeightsKind
from graftkit.sources.weights.lightning import Lightning
from graftkit.sources.weights.safetensors import Safetensors
from graftkit.sources.weights.sharded import Sharded
from graftkit.sources.weights.state_dict import StateDict

WEIGHTS: Table[WeightsKind] = Table(
    "format of weights",
    {kind.name: kind for kind in (Safetensors(), Sharded(), Lightning(), StateDict())},
    SourceError,
)


def weights_kind(path: Path, head: bytes, *, asked: bool) -> WeightsKind | None:
    """The format of the weights in a file, None where it holds none; `asked`: the user said that it does."""
    return next((kind for kind in WEIGHTS.values() if kind.recognises(path, head, asked=asked)), None)


def read_weights(path: Path, allow: Sequence[str] = ()) -> Weights:
    """The weights in a file that the user named as such. Raises SourceError."""
    head = read_head(path)
    if not head:
        raise SourceError(f"{path} is empty; copy or download it again")
    kind = weights_kind(path, head, asked=True)
    if kind is None and head.startswith(ZIP_MAGIC):
        raise SourceError(refusal(path, head))
    if kind is None:
        raise SourceError(f"{path} is neither a state dict of torch.save nor a safetensors file")
    return kind.read(path, allow)


__all__ = ["WEIGHTS", "Weights", "fill", "read_weights", "weights_kind"]
