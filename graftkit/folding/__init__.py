"""From a grafted graph to a plain ONNX file: export, rewrites, names, metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import onnx

from graftkit.core.sites import Site
from graftkit.folding import surgeon
from graftkit.folding.export import DEFAULT_OPSET, OPSETS, check_standard, to_onnx
from graftkit.folding.gated import ALL, gated
from graftkit.folding.layouts import BRANCHES, LAYOUTS, arrange
from graftkit.folding.names import mark_sites, rename, restore_scopes, scopes_of
from graftkit.folding.ports import graphs_of
from graftkit.folding.reading import PREFIX, OnnxFile, numbers_in, open_onnx, read_description, read_onnx
from graftkit.folding.rewrites import REWRITES
from graftkit.folding.storing import data_files, is_data_file, staged
from graftkit.folding.written import LARGE, ONE_FILE, Written

__all__ = [
    "ALL",
    "BRANCHES",
    "DEFAULT_OPSET",
    "LARGE",
    "LAYOUTS",
    "ONE_FILE",
    "OPSETS",
    "PREFIX",
    "OnnxFile",
    "Written",
    "arrange",
    "check_standard",
    "data_files",
    "describe",
    "fold",
    "gated",
    "graphs_of",
    "is_data_file",
    "numbers_in",
    "open_onnx",
    "read_description",
    "read_onnx",
    "staged",
    "tell",
    "to_onnx",
]

_ROUNDS = 10  # a rewrite may open the way for another; this many rounds have always been enough


def fold(model: Written, sites: Sequence[Site], grafted: Sequence[str]) -> Written:
    """Fold constants, batch norms and strengths, drop what does nothing, and name what is left.

    Args:
        model: as `to_onnx` made it; it is not changed.
        sites: the traced model's sites, in the order of the graph.
        grafted: keys of those that have dendrites.

    Raises:
        ExportError: the result is not valid ONNX of the standard domain.
    """
    graph = surgeon.read(model)
    with surgeon.silent():
        for _ in range(_ROUNDS):
            graph.cleanup().toposort()
            if not sum([rewrite(graph) for rewrite in REWRITES.values()]):
                break
        graph.cleanup().toposort()
    folded = surgeon.write(graph, large=model.large)
    proto = folded.proto
    proto.ir_version = model.proto.ir_version
    del proto.metadata_props[:]
    restore_scopes(proto, scopes_of(model.proto))
    mark_sites(proto, sites, grafted)
    rename(proto)
    check_standard(proto)
    return folded


def describe(
    model: onnx.ModelProto, *, version: str, facts: Mapping[str, Any], own: Mapping[str, str] | None = None
) -> None:
    """Write graftkit's version and facts, as JSON by name, into the model's metadata, in place.

    `own` is the user's own metadata, which is kept as it is; what another graftkit file said is not.
    """
    model.producer_name, model.producer_version = "graftkit", version
    del model.metadata_props[:]
    for name, value in (own or {}).items():
        if not name.startswith(PREFIX):
            model.metadata_props.add(key=name, value=value)
    tell(model, version=version, **facts)


def tell(model: onnx.ModelProto, **facts: Any) -> None:
    """Add facts, as JSON by name, to the model's metadata, in place."""
    for name, value in facts.items():
        text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
        model.metadata_props.add(key=PREFIX + name, value=text)
