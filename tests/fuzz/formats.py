"""The one table of formats: their good files, how those are broken, and who reads them."""

from __future__ import annotations

from pathlib import Path

from graftkit import api
from graftkit.contracts import SourceRequest
from graftkit.datasets import load_data
from graftkit.dendrite_files import opened, record_of
from graftkit.reporting import dendrite_file_table
from graftkit.sources import SOURCES, load

from . import originals
from .broken import BYTES
from .case import Format
from .nets import base
from .onnx_originals import onnx_files
from .pickles import PICKLES, inside
from .programs import PROGRAMS
from .protos import PROTOS
from .scripts import SCRIPTS
from .tables import ARRAYS, INDICES, SAFETENSORS, other_facts
from .zips import ZIPS

_ARCH = "tests.fuzz.nets:small"


def _model(path: Path) -> object:
    return load(SourceRequest(str(path)))


def _weights(path: Path) -> object:
    return load(SourceRequest(str(path), arch=_ARCH))


def _program(path: Path) -> object:
    """Once it is read, its guards and graph are compiled, too; that may fail, but it must not run what is in them."""
    loaded = _model(path)
    unlift = getattr(loaded.model, "module", None)  # type: ignore[attr-defined]
    try:
        if unlift is not None:
            unlift(check_guards=True)
    except Exception:  # tracing reports these
        pass
    return loaded


def _dendrites(path: Path) -> object:
    with opened(path) as file:
        dendrite_file_table(record_of(file))
    return api.load_dendrites(base(), path)


def _data(path: Path) -> object:
    return load_data(str(path), seed=0, input_shape=(-1, 1, 6, 6))


_IN_ZIP = inside("data.pkl", PICKLES)

FORMATS: dict[str, Format] = {
    each.name: each
    for each in (
        Format("pickle", ".pt", originals.modules, BYTES + ZIPS + _IN_ZIP, _model),
        Format("state_dict", ".pt", originals.weights, BYTES + ZIPS + _IN_ZIP, _weights),
        Format("lightning", ".ckpt", originals.lightning, BYTES + ZIPS + _IN_ZIP, _weights),
        Format("legacy", ".pt", originals.legacy, (*BYTES, *PICKLES), _weights),
        Format("safetensors", ".safetensors", originals.safetensors, BYTES + SAFETENSORS, _weights),
        Format("sharded", ".safetensors.index.json", originals.sharded, (*BYTES, *INDICES * 9), _weights),
        Format("dendrites", ".safetensors", originals.dendrites, BYTES + SAFETENSORS + (other_facts,) * 9, _dendrites),
        Format("pt2", ".pt2", originals.programs, (*BYTES, *ZIPS, *PROGRAMS, *PROGRAMS), _program),
        Format("torchscript", ".pt", originals.scripts, (*BYTES, *ZIPS, *SCRIPTS, *SCRIPTS), _model),
        Format("onnx", ".onnx", onnx_files, (*BYTES, *PROTOS, *PROTOS), _model),
        Format("onnx_inspect", ".onnx", onnx_files, (*BYTES, *PROTOS, *PROTOS), api.inspect),
        Format("npz", ".npz", originals.arrays, (*BYTES, *ZIPS, *ARRAYS, *ARRAYS), _data),
    )
    if each.name != "onnx" or "onnx" in SOURCES
}
