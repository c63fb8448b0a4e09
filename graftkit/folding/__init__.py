"""From a grafted graph to a plain ONNX file: export, rewrites, names, metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import onnx
import onnx_graphsurgeon as gs

from graftkit.core.errors import ExportError
from graftkit.core.sites import Site
from graftkit.folding.export import DEFAULT_OPSET, OPSETS, check_standard, to_onnx
from graftkit.folding.names import mark_sites, rename, restore_scopes, scopes_of
from graftkit.folding.rewrites import REWRITES

__all__ = ["DEFAULT_OPSET", "OPSETS", "describe", "fold", "read_description", "to_onnx"]

_PREFIX = "graftkit."
_ROUNDS = 10  # a rewrite may open the way for another; this many rounds have always been enough


def fold(model: onnx.ModelProto, sites: Sequence[Site], grafted: Sequence[str]) -> onnx.ModelProto:
    """Fold constants, batch norms and strengths, drop what does nothing, and name what is left.

    Args:
        model: as `to_onnx` made it; it is not changed.
        sites: the traced model's sites, in the order of the graph.
        grafted: keys of those that have dendrites.

    Raises:
        ExportError: the result is not valid ONNX of the standard domain.
    """
    scopes = scopes_of(model)
    graph = gs.import_onnx(model)
    for _ in range(_ROUNDS):
        graph.fold_constants().cleanup().toposort()
        if not sum([rewrite(graph) for rewrite in REWRITES.values()]):
            break
    graph.cleanup().toposort()
    folded: onnx.ModelProto = gs.export_onnx(graph)
    folded.ir_version = model.ir_version
    del folded.metadata_props[:]
    restore_scopes(folded, scopes)
    mark_sites(folded, sites, grafted)
    rename(folded)
    check_standard(folded)
    return folded


def describe(model: onnx.ModelProto, *, version: str, facts: Mapping[str, Any]) -> None:
    """Write graftkit's version and facts, as JSON by name, into the model's metadata, in place."""
    model.producer_name, model.producer_version = "graftkit", version
    del model.metadata_props[:]
    for name, value in {"version": version, **facts}.items():
        text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
        model.metadata_props.add(key=_PREFIX + name, value=text)


def read_description(model: onnx.ModelProto) -> dict[str, Any]:
    """What `describe` wrote, by name; empty for a file graftkit did not write. Raises ExportError if it is broken."""
    facts: dict[str, Any] = {}
    for entry in model.metadata_props:
        name = entry.key.removeprefix(_PREFIX)
        if name == entry.key:
            continue
        if not entry.value.startswith(("{", "[")):
            facts[name] = entry.value
            continue
        try:
            facts[name] = json.loads(entry.value)
        except json.JSONDecodeError as error:
            raise ExportError(f"the ONNX file's metadata {entry.key!r} is not JSON: {error}") from None
    return facts
