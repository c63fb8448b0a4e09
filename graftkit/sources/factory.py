"""The `factory` format: an architecture as the model, with `--weights` or without."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from graftkit.contracts import LoadedModel, SourceRequest
from graftkit.sources.architectures import Order, architecture_of, make
from graftkit.sources.arguments import read_arguments
from graftkit.sources.weights import read_weights


@dataclass(frozen=True)
class Factory:
    """`package.module:factory`, `timm:NAME` or `hf:FOLDER`."""

    name: ClassVar[str] = "factory"

    def recognises(self, request: SourceRequest, head: bytes) -> bool:
        return not head and architecture_of(request.spec) is not None

    def load(self, request: SourceRequest) -> LoadedModel:
        arguments = read_arguments(request.arch_args)
        given = None if request.weights is None else read_weights(request.weights, request.allow)
        made, kind = make(Order(request.spec, arguments, given, request.trust))
        provenance = {
            "factory": request.spec,
            "format": kind,
            "arch_args": dict(request.arch_args),
            "weights": None if made.weights is None else str(made.weights.path),
            "sha256": None if made.weights is None else made.weights.sha256(),
            "trust": request.trust,
        }
        read = given.warnings if given is not None else ()
        return LoadedModel(made.model, provenance, made.name, (*read, *made.warnings))
