"""Input formats: what a model can be read from, told by content, and the one table of them."""

from __future__ import annotations

from pathlib import Path

from graftkit.contracts import LoadedModel, Source, SourceRequest
from graftkit.core.errors import SourceError
from graftkit.core.table import Table
from graftkit.sources.archive import Archive
from graftkit.sources.factory import Factory, names_a_factory
from graftkit.sources.files import looks_like_onnx, read_head, refusal
from graftkit.sources.pickled import Pickled

SOURCES: Table[Source] = Table(
    "input format", {source.name: source for source in (Pickled(), Archive(), Factory())}, SourceError
)


def load(request: SourceRequest) -> LoadedModel:
    """Read the model that a request names, a file by its content and never by its ending. Raises SourceError."""
    head = b"" if names_a_factory(request.spec) else read_head(Path(request.spec))
    for source in SOURCES.values():
        if source.recognises(request, head):
            if request.weights is not None and source.name != Factory.name:
                raise SourceError(f"{request.spec} brings its own weights; --weights goes with package.module:factory")
            return source.load(request)
    raise SourceError(refusal(Path(request.spec), head))


__all__ = ["SOURCES", "load", "looks_like_onnx"]
