"""The `torchscript` format: an archive that torch.jit.save wrote, of a scripted or a traced module."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from graftkit.contracts import LoadedModel, SourceRequest
from graftkit.core.errors import SourceError, TraceError
from graftkit.sources.files import READER_ERRORS, ZIP_MAGIC, record_sizes, refuse_bomb, sha256_of, zip_members
from graftkit.sources.pickle_safety import first_line
from graftkit.sources.torchscript_safety import check_script, check_size
from graftkit.tracing.scripted import replayed

BAKED = (
    "one mode is baked into this TorchScript: dropout, batch norm and recurrent layers are switched for the other, and"
    " stochastic depth and other branches of training, if the model had any, stay as they are"
)

FROZEN = (
    "this TorchScript was frozen: weights come from its constants, and what freezing folded or took out (batch norm,"
    " dropout) is not there in training either"
)


@dataclass(frozen=True)
class TorchScript:
    """`torch.jit.save`'s archives: checked before torch sees them, unless trusted, and replayed in Python.

    The model is a live module in the script's image (`graftkit.tracing.scripted.replayed`), which shares its weights.
    """

    name: ClassVar[str] = "torchscript"

    def recognises(self, request: SourceRequest, head: bytes) -> bool:
        if not head.startswith(ZIP_MAGIC):
            return False
        members = zip_members(Path(request.spec))
        return "constants.pkl" in members or any(name.startswith("code/") for name in members)

    def load(self, request: SourceRequest) -> LoadedModel:
        path = Path(request.spec)
        if not request.trust:
            _check(path)
        module = _load(path, trust=request.trust)
        try:
            model = replayed(module)
        except TraceError as error:
            raise SourceError(f"{path} cannot be used: {error}") from error
        except Exception as error:  # the archive's own code is looked at here
            raise SourceError(f"{path} cannot be used: {first_line(error)}") from error
        provenance = {"path": request.spec, "format": self.name, "sha256": sha256_of(path), "trust": request.trust}
        notes = [note for note, holds in ((BAKED, model.baked), (FROZEN, model.frozen)) if holds]
        return LoadedModel(model, provenance, path.stem, tuple(notes))


def _check(path: Path) -> None:
    listed = zip_members(path)
    refuse_bomb(path.stat().st_size, listed, where=str(path))
    try:
        reader = torch._C.PyTorchFileReader(str(path))
        members = record_sizes(reader, listed)
    except READER_ERRORS as error:
        raise SourceError(f"{path} is damaged; copy or download it again") from error
    refuse_bomb(path.stat().st_size, members, where=str(path))
    check_script(reader, members, str(path))


def _load(path: Path, *, trust: bool) -> torch.jit.ScriptModule:
    """As torch.jit.load does, keeping hold of what was compiled."""
    functions = torch._C.CompilationUnit()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = torch._C.import_ir_module(functions, str(path), torch.device("cpu"), {}, False)  # type: ignore[call-arg]
    except Exception as error:  # whatever a foreign file provokes is the file's fault
        raise SourceError(f"{path} cannot be loaded: {first_line(error)}") from error
    if not trust:
        check_size(functions, str(path))
    return torch.jit._recursive.wrap_cpp_module(module)  # type: ignore[no-any-return, no-untyped-call]
