"""The `weights` format: a file that holds weights alone, with `--arch` for the architecture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from graftkit.contracts import LoadedModel, SourceRequest
from graftkit.core.errors import SourceError
from graftkit.sources.architectures import Order, make
from graftkit.sources.arguments import read_arguments
from graftkit.sources.files import ARCH_HINT, read_head
from graftkit.sources.weights import weights_kind


@dataclass(frozen=True)
class WeightsFile:
    """A state dict, safetensors, a Lightning checkpoint: read for its tensors, and nothing in it runs."""

    name: ClassVar[str] = "weights"

    def recognises(self, request: SourceRequest, head: bytes) -> bool:
        return bool(head) and weights_kind(Path(request.spec), head, asked=request.arch is not None) is not None

    def load(self, request: SourceRequest) -> LoadedModel:
        path = Path(request.spec)
        kind = weights_kind(path, read_head(path), asked=request.arch is not None)
        assert kind is not None  # it was recognised
        weights = kind.read(path, request.allow)
        if request.arch is None:
            raise SourceError(
                f"{path} is {kind.called}, which holds weights but no architecture; name that with {ARCH_HINT}, or give"
                f" the file as --weights of one"
            )
        order = Order(request.arch, read_arguments(request.arch_args), weights, request.trust)
        made, _ = make(order)
        provenance = {
            "path": request.spec,
            "format": weights.format,
            "arch": request.arch,
            "arch_args": dict(request.arch_args),
            "sha256": weights.sha256(),
            "trust": request.trust,
        }
        name = Path(path.name.removesuffix(".index.json")).stem
        return LoadedModel(made.model, provenance, name, (*weights.warnings, *made.warnings))
