"""Input formats: what a model can be read from, told by content, and the one table of them."""

from __future__ import annotations

from pathlib import Path

from graftkit.contracts import LoadedModel, Source, SourceRequest
from graftkit.core.errors import SourceError
from graftkit.core.table import Table
from graftkit.sources.architectures import anchored, architecture_of
from graftkit.sources.archive import Archive
from graftkit.sources.compressed import is_compressed, load_compressed
from graftkit.sources.factory import Factory
from graftkit.sources.files import looks_like_onnx, read_head, refusal
from graftkit.sources.onnx_model import OnnxModel
from graftkit.sources.part import part_of
from graftkit.sources.pickled import Pickled
from graftkit.sources.torchscript import TorchScript
from graftkit.sources.weights_file import WeightsFile

SOURCES: Table[Source] = Table(
    "input format",
    {source.name: source for source in (WeightsFile(), Pickled(), Archive(), TorchScript(), OnnxModel(), Factory())},
    SourceError,
)


def load(request: SourceRequest) -> LoadedModel:
    """Read the model, or the part of it, that a request names, a file by its content and never by its ending.

    The folder of a compression is read by what it was made from.

    Raises SourceError.
    """
    path = Path(request.spec)
    if is_compressed(path):
        loaded = load_compressed(request, load)
        return part_of(loaded, request.part) if request.part else loaded
    head = b"" if architecture_of(request.spec) is not None else read_head(path)
    for source in SOURCES.values():
        if source.recognises(request, head):
            _check_options(request, source)
            loaded = source.load(request)
            return part_of(loaded, request.part) if request.part else loaded
    raise SourceError(refusal(path, head))


def _check_options(request: SourceRequest, source: Source) -> None:
    """Raise SourceError where an option was given that this format has no use for, and that means a mistake."""
    spec, architecture = request.spec, source.name == Factory.name
    if request.weights is not None and not architecture:
        raise SourceError(
            f"{spec} brings its own weights; --weights goes with package.module:factory, timm:NAME or hf:FOLDER"
        )
    if request.arch is not None and source.name != WeightsFile.name:
        where = "is an architecture itself" if architecture else "brings its own architecture"
        raise SourceError(f"{spec} {where}; --arch goes with a file that holds weights alone")
    if request.arch_args and request.arch is None and not architecture:
        raise SourceError(f"{spec} is made already; --arch-args go with --arch, or with an architecture as the model")


__all__ = ["SOURCES", "anchored", "load", "looks_like_onnx"]
